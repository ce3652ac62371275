"""Small configs of Phi-3, Gemma 2 and Mixtral that have what is peculiar to each.

A row: an id, the model class and the config class of `transformers`, and the config's arguments.
Inputs are token ids (batch, time) below `vocab_size`; with 9 tokens or more, the windows of 4 hide
something, and the long rotary positions with `original_max_position_embeddings` 8 are in use.
"""

from typing import Any

SMALL = {
    "vocab_size": 99,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": None,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def longrope(original_length: int) -> dict[str, Any]:
    """The config of Phi-3 with factors for the four pairs of a head of 8."""
    return {
        "original_max_position_embeddings": original_length,
        "rope_parameters": {
            "rope_type": "longrope",
            "rope_theta": 10_000.0,
            "short_factor": [1.0, 1.1, 1.2, 1.3],
            "long_factor": [1.5, 2.5, 4.0, 9.0],
        },
    }


CONFIGS: list[tuple[str, str, str, dict[str, Any]]] = [
    ("phi3", "Phi3ForCausalLM", "Phi3Config", {**SMALL, "sliding_window": 4}),
    ("phi3-long", "Phi3ForCausalLM", "Phi3Config", {**SMALL, **longrope(8)}),
    ("phi3-short", "Phi3ForCausalLM", "Phi3Config", {**SMALL, **longrope(32)}),
    (
        "phi3-partial",  # Phi-4 mini: three quarters of each head are turned, and the head is tied.
        "Phi3ForCausalLM",
        "Phi3Config",
        {
            **SMALL,
            "tie_word_embeddings": True,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10_000.0,
                "partial_rotary_factor": 0.75,
            },
        },
    ),
    (
        "gemma2",
        "Gemma2ForCausalLM",
        "Gemma2Config",
        {**SMALL, "head_dim": 16, "num_hidden_layers": 3, "query_pre_attn_scalar": 24}
        | {"sliding_window": 4, "attn_logit_softcapping": 1.5, "final_logit_softcapping": 2.0},
    ),
    (
        "gemma2-uncapped",
        "Gemma2ForCausalLM",
        "Gemma2Config",
        {**SMALL, "head_dim": 8, "attn_logit_softcapping": None, "final_logit_softcapping": None}
        | {"attention_bias": True},
    ),
    (
        "gemma2-untied",
        "Gemma2ForCausalLM",
        "Gemma2Config",
        {**SMALL, "head_dim": 8, "tie_word_embeddings": False, "final_logit_softcapping": 2.0},
    ),
    (
        "mixtral",
        "MixtralForCausalLM",
        "MixtralConfig",
        {**SMALL, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 4},
    ),
    (
        "mixtral-sparse",  # Few of many, so that tokens are sorted by expert; others: all by all.
        "MixtralForCausalLM",
        "MixtralConfig",
        {**SMALL, "num_local_experts": 8, "num_experts_per_tok": 2, "tie_word_embeddings": True},
    ),
]
