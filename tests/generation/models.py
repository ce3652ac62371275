"""Small networks with random weights for the tests of generation."""

import functools

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
    LongRotary,
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


# Where a row of a "long" network becomes long.
BORDER = 12


def causal(kind="rotary", vocabulary=VOCABULARY):
    """A CausalLM of one layer, built; with a window two.

    "rotary" with grouped heads; "window" sees 4 tokens in one of its layers; "learned" has 40
    positions; "relative" has T5's bias; "long" has other frequencies for rows beyond `BORDER`.
    """
    keras.utils.set_random_seed(0)
    rotary = Rotary(rotary_frequencies(4)) if kind in ("rotary", "window") else None
    rotary = long_rotary(4) if kind == "long" else rotary
    windows = (4, None) if kind == "window" else (None,)
    blocks = [
        Block(
            Attention(4, 4, 2, rotary=rotary, sees=Causal(window), initializer=start()),
            FeedForward(32, initializer=start()),
            PreNorm(RMSNorm()),
        )
        for window in windows
    ]
    positions = LearnedPositions(40, 16, initializer=start()) if kind == "learned" else None
    bias = RelativeBias(4, 8, 16, bidirectional=False) if kind == "relative" else None
    model = CausalLM(
        TokenFront(vocabulary, 16, positions, initializer=start()),
        Transformer(blocks, len(blocks), RMSNorm(), bias),
        TiedHead(),
    )
    model.build()
    if bias is not None:
        shuffle(model.transformer.position_bias.embeddings)
    return model


@functools.cache
def shared(kind="rotary", vocabulary=VOCABULARY):
    """As `causal`, for tests that leave it as it is: made and traced once for all of them."""
    return causal(kind, vocabulary)


def long_rotary(pairs_twice):
    """Two sets of frequencies that are far apart."""
    frequencies = rotary_frequencies(pairs_twice, 10.0)
    return LongRotary(frequencies, [f / 8 for f in frequencies], BORDER)


def uncached(model, prompt, new):
    """The logits before each new token, of one call on the whole text without padding."""
    logits = keras.ops.convert_to_numpy(model(np.array([prompt + new], "int32")))
    return logits[0, len(prompt) - 1 : -1]


def across(logits_of, text, first):
    """The logits before each id from place `first` on, of a network with a border.

    Of two calls: as long as the text is short, and when it is long. All texts that end on one side
    of the border are turned alike, and an id sees only those before it.
    """
    short, whole = (
        keras.ops.convert_to_numpy(logits_of(np.array([ids])))[0] for ids in (text[:BORDER], text)
    )
    # The two sets are far apart: else the tests would not see a cache that is void.
    assert len(text) <= BORDER or abs(short[1:] - whole[1:BORDER]).max() > 1e-2
    return np.concatenate([short, whole[BORDER:]])[first - 1 : -1]


def seq2seq(front=None, rotary=None):
    """A Seq2Seq of one layer, built; by default over tokens."""
    keras.utils.set_random_seed(1)
    attention = Attention(2, 8, initializer=start())
    encoder = Block(attention, FeedForward(32, initializer=start()), PreNorm(RMSNorm()))
    decoder = Block(
        Attention(2, 8, rotary=rotary, sees=Causal(), initializer=start()),
        FeedForward(32, initializer=start()),
        PreNorm(RMSNorm()),
        cross_attention=attention,
    )
    tokens = TokenFront(
        VOCABULARY, 16, LearnedPositions(40, 16, initializer=start()), initializer=start()
    )
    model = Seq2Seq(
        front or tokens,
        Transformer(encoder, 1, RMSNorm()),
        Transformer(decoder, 1, RMSNorm()),
        TiedHead(),
        decoder_front=tokens if front else None,
    )
    model.build()
    return model


@functools.cache
def translator():
    """As `seq2seq`, shared."""
    return seq2seq()


@functools.cache
def sound():
    """A Seq2Seq over features of 3 channels, shared."""
    return seq2seq(SoundFront(3, 16, initializer=start()))


def start():
    """Larger than one would train from, so that the texts are not one token repeated."""
    return keras.initializers.RandomNormal(stddev=0.4)


def shuffle(variable):
    """Draws a variable anew, wide."""
    variable.assign(np.random.default_rng(0).normal(size=variable.shape))


@functools.cache
def both(name):
    """`from_transformers` of "llama" or "t5", shared."""
    return from_transformers(name, **(LLAMA if name == "llama" else T5))


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
