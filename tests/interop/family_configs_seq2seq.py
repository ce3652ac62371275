"""Small configs of T5, Marian and Whisper, each of which shows what is peculiar to its family.

A row is `(id, model class, config class, arguments)`, the classes by their names in `transformers`.
"""

from typing import Any

import numpy as np

T5_SIZES = {
    "vocab_size": 99,
    "d_model": 32,
    "d_kv": 6,  # not d_model / num_heads
    "d_ff": 48,
    "num_layers": 2,
    "num_decoder_layers": 3,
    "num_heads": 4,
    # Few and near, so that short rows reach the logarithmic buckets and the last one.
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 7,
    "decoder_start_token_id": 0,
}
BART_SIZES = {
    "vocab_size": 99,
    "d_model": 32,
    "encoder_layers": 2,
    "encoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_layers": 3,
    "decoder_attention_heads": 2,
    "decoder_ffn_dim": 40,
    "decoder_start_token_id": 98,
    "pad_token_id": 98,
    "eos_token_id": 0,
}
MARIAN_SIZES = {
    **BART_SIZES,
    "max_position_embeddings": 64,
    "activation_function": "swish",
    "scale_embedding": True,
    "forced_eos_token_id": None,
}
WHISPER_SIZES = {
    **BART_SIZES,
    "num_mel_bins": 10,
    "max_source_positions": 12,
    "max_target_positions": 20,
    "bos_token_id": 97,
    "begin_suppress_tokens": None,
    "scale_embedding": True,  # which transformers does not heed
}

CONFIGS: list[tuple[str, str, str, dict[str, Any]]] = [
    ("t5", "T5ForConditionalGeneration", "T5Config", T5_SIZES),
    (
        "t5_v1_1",
        "T5ForConditionalGeneration",
        "T5Config",
        {**T5_SIZES, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
    ),
    ("marian", "MarianMTModel", "MarianConfig", MARIAN_SIZES),
    (
        "marian_relu",
        "MarianMTModel",
        "MarianConfig",
        {**MARIAN_SIZES, "activation_function": "relu", "scale_embedding": False},
    ),
    (
        "marian_two_vocabularies",
        "MarianMTModel",
        "MarianConfig",
        {**MARIAN_SIZES, "decoder_vocab_size": 77, "share_encoder_decoder_embeddings": False}
        | {"decoder_start_token_id": 76, "pad_token_id": 76},
    ),
    ("whisper", "WhisperForConditionalGeneration", "WhisperConfig", WHISPER_SIZES),
]


def prepared(module: Any) -> Any:
    """A PyTorch model as its real checkpoints are.

    transformers 5 ties the head of every T5 that it makes, and leaves it free in one that it loads
    with a head of its own (all of 1.1): so it is here.
    """
    import torch

    if module.config.model_type == "t5" and not module.config.scale_decoder_outputs:
        module.lm_head.weight = torch.nn.Parameter(module.lm_head.weight.detach().clone())
    return module


def inputs(config: Any, seed: int = 0) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The same batch of two rows for us and for `transformers`, the second padded on the right.

    Args:
        config: of `transformers`.
        seed: of the numbers.

    Returns:
        `(ours, theirs)`.
    """
    draw = np.random.default_rng(seed)
    # Below every padding id: PyTorch's embeddings take no gradient for it, ours do.
    target, source = (draw.integers(1, 76, (2, length)) for length in (9, 13))
    target_mask = np.arange(9) < np.array([[9], [6]])
    ours = {"decoder_token_ids": target, "decoder_padding_mask": target_mask.astype(int)}
    theirs = {"decoder_input_ids": target, "decoder_attention_mask": target_mask.astype(int)}
    if config.model_type == "whisper":
        frames = 2 * config.max_source_positions
        sound = draw.normal(size=(2, frames, config.num_mel_bins)).astype("float32")
        ours["encoder_features"] = sound
        theirs["input_features"] = np.ascontiguousarray(sound.transpose(0, 2, 1))
        return ours, theirs
    source_mask = (np.arange(13) < np.array([[13], [8]])).astype(int)
    ours |= {"encoder_token_ids": source, "encoder_padding_mask": source_mask}
    theirs |= {"input_ids": source, "attention_mask": source_mask}
    return ours, theirs
