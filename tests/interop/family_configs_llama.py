"""Small configs of Llama 2 and 3, Mistral, SmolLM, Qwen 2 and 3, and GPT-2; rows as beside."""

from typing import Any

SMALL: dict[str, Any] = {
    "vocab_size": 99,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 10_000.0,
    "factor": 2.0,
    "original_max_position_embeddings": 32,
}
GPT2: dict[str, Any] = {
    "vocab_size": 99,
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
}

CONFIGS: list[tuple[str, str, str, dict[str, Any]]] = [
    ("llama2", "LlamaForCausalLM", "LlamaConfig", {**SMALL, "num_key_value_heads": 4}),
    (
        "llama3",
        "LlamaForCausalLM",
        "LlamaConfig",
        {**SMALL, "rope_parameters": LLAMA3, "attention_bias": True, "mlp_bias": True},
    ),
    (
        "smollm",
        "LlamaForCausalLM",
        "LlamaConfig",
        {**SMALL, "tie_word_embeddings": True, "num_attention_heads": 3, "num_key_value_heads": 1}
        | {"hidden_size": 24, "head_dim": 8},
    ),
    ("mistral", "MistralForCausalLM", "MistralConfig", {**SMALL, "sliding_window": 4}),
    ("qwen2", "Qwen2ForCausalLM", "Qwen2Config", {**SMALL, "rope_parameters": YARN}),
    (
        "qwen2-window",
        "Qwen2ForCausalLM",
        "Qwen2Config",
        {**SMALL, "use_sliding_window": True, "sliding_window": 3, "max_window_layers": 1},
    ),
    ("qwen3", "Qwen3ForCausalLM", "Qwen3Config", {**SMALL, "head_dim": 16}),
    ("gpt2", "GPT2LMHeadModel", "GPT2Config", GPT2),
    (
        "gpt2-free-head",
        "GPT2LMHeadModel",
        "GPT2Config",
        {**GPT2, "tie_word_embeddings": False, "n_inner": 40, "activation_function": "gelu"},
    ),
]
