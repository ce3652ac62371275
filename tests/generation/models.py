"""Small networks with random weights for the tests of generation."""

import keras
import numpy as np
import pytest

from tfbig.models import (
    Attention,
    Block,
    Causal,
    CausalLM,
    FeedForward,
    LearnedPositions,
    PreNorm,
    RelativeBias,
    RMSNorm,
    Rotary,
    Seq2Seq,
    SoundFront,
    TiedHead,
    TokenFront,
    Transformer,
    rotary_frequencies,
)

VOCABULARY = 60


def causal(kind="rotary", vocabulary=VOCABULARY):
    """A CausalLM of two layers, built.

    "rotary" with grouped heads; "window" sees 4 tokens in one of its layers; "learned" has 128
    positions; "relative" has T5's bias.
    """
    keras.utils.set_random_seed(0)
    rotary = Rotary(rotary_frequencies(4)) if kind in ("rotary", "window") else None
    windows = (4, None) if kind == "window" else (None,)
    blocks = [
        Block(
            Attention(4, 4, 2, rotary=rotary, sees=Causal(window), initializer=start()),
            FeedForward(32, initializer=start()),
            PreNorm(RMSNorm()),
        )
        for window in windows
    ]
    positions = LearnedPositions(128, 16, initializer=start()) if kind == "learned" else None
    bias = RelativeBias(4, 8, 16, bidirectional=False) if kind == "relative" else None
    model = CausalLM(
        TokenFront(vocabulary, 16, positions, initializer=start()),
        Transformer(blocks, 2, RMSNorm(), bias),
        TiedHead(),
    )
    model.build()
    if bias is not None:
        shuffle(model.transformer.position_bias.embeddings)
    return model


def seq2seq(front=None, bias=None):
    """A Seq2Seq of two layers, built; by default over tokens."""
    keras.utils.set_random_seed(1)
    attention = Attention(2, 8, initializer=start())
    encoder = Block(attention, FeedForward(32, initializer=start()), PreNorm(RMSNorm()))
    decoder = Block(
        Attention(2, 8, sees=Causal(), initializer=start()),
        FeedForward(32, initializer=start()),
        PreNorm(RMSNorm()),
        cross_attention=attention,
    )
    tokens = TokenFront(
        VOCABULARY, 16, LearnedPositions(40, 16, initializer=start()), initializer=start()
    )
    model = Seq2Seq(
        front or tokens,
        Transformer(encoder, 2, RMSNorm()),
        Transformer(decoder, 2, RMSNorm()),
        TiedHead(),
        decoder_front=tokens if front else None,
    )
    model.build()
    return model


def sound():
    """A Seq2Seq over features of 3 channels."""
    return seq2seq(SoundFront(3, 16, initializer=start()))


def start():
    """Larger than one would train from, so that the texts are not one token repeated."""
    return keras.initializers.RandomNormal(stddev=0.4)


def shuffle(variable):
    """Draws a variable anew, wide."""
    variable.assign(np.random.default_rng(0).normal(size=variable.shape))


def from_transformers(name, **config):
    """A random model of `transformers` and ours with its weights."""
    torch = pytest.importorskip("torch", reason="the oracle is PyTorch")
    transformers = pytest.importorskip("transformers", reason="the oracle is transformers")
    from tfbig.interop.torch_modules import from_torch

    made = transformers.AutoConfig.for_model(name, **config)
    # With a core for each of its threads busy elsewhere, PyTorch waits for them at every operation.
    torch.set_num_threads(1)
    torch.manual_seed(0)
    kind = "AutoModelForSeq2SeqLM" if made.is_encoder_decoder else "AutoModelForCausalLM"
    module = getattr(transformers, kind).from_config(made, attn_implementation="eager").eval()
    return module, from_torch(module)


LLAMA = dict(
    vocab_size=VOCABULARY,
    hidden_size=16,
    intermediate_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    initializer_range=0.4,
    tie_word_embeddings=True,
)
T5 = dict(
    vocab_size=VOCABULARY,
    d_model=16,
    d_kv=4,
    d_ff=32,
    num_layers=2,
    num_heads=4,
    initializer_factor=2.0,
    decoder_start_token_id=0,
)
