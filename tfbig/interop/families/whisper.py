"""Whisper: speech to text, pre-norm, with given positions of the encoder and no bias of the keys.

Source: Radford et al., 2022 (arXiv:2212.04356). `encoder_features` is a log-mel spectrogram
`(batch, frames, mel bands)`; transformers has frames last. Whisper was trained on rows of exactly
2 x `max_source_positions` frames (30 s): pad to them; more are refused, and with fewer the network
runs but has not learned to. The encoder alone: `SpeechEncoder(model.front, model.encoder)`.

The encoder's positions are given (sinusoids of OpenAI's own spacing) and not trained; they are read
from the checkpoint. Left out: LayerDrop, SpecAugment, the head for classes of sound.
"""

import keras

from tfbig.interop.families.bart import layers, stacks
from tfbig.interop.family import Config, Family, field, option, rate
from tfbig.interop.names import CONV1D, Name, layer_norm, linear
from tfbig.models import (
    Head,
    LearnedPositions,
    PreNorm,
    Seq2Seq,
    SoundFront,
    TiedHead,
    TokenFront,
)

BIASED = ["query", "value", "output"]


def build(config: Config) -> keras.Model:
    """The network of a config."""
    hidden_dim, dropout = field(config, "d_model"), rate(config, "dropout", 0.0)
    start = keras.initializers.RandomNormal(stddev=option(config, "init_std", 0.02))
    norm = keras.layers.LayerNormalization(epsilon=1e-5)

    encoder, decoder = stacks(config, start, BIASED, PreNorm(norm, dropout), norm)
    vocabulary = field(config, "vocab_size")
    places = LearnedPositions(
        option(config, "max_source_positions", 1500), hidden_dim, trainable=False
    )
    return Seq2Seq(
        SoundFront(
            option(config, "num_mel_bins", 80),
            hidden_dim,
            places,
            dropout=dropout,
            initializer=start,
        ),
        encoder,
        decoder,
        TiedHead() if _tied(config) else Head(vocabulary, initializer=start),
        TokenFront(
            vocabulary,
            hidden_dim,
            LearnedPositions(
                option(config, "max_target_positions", 448), hidden_dim, initializer=start
            ),
            dropout=dropout,
            initializer=start,
            name="decoder_front",
        ),
        name="whisper",
    )


def _tied(config: Config) -> bool:
    return option(config, "tie_word_embeddings", True)


def names(config: Config, model: keras.Model) -> list[Name]:
    """The table of names."""
    around = [
        Name("model.decoder.embed_tokens.weight", "decoder_front.tokens.embeddings"),
        Name("model.decoder.embed_positions.weight", "decoder_front.positions.embeddings"),
        Name("model.encoder.embed_positions.weight", "front.positions.embeddings"),
    ]
    for number, layer in ((1, "first"), (2, "second")):
        around += [
            Name(f"model.encoder.conv{number}.weight", f"front.{layer}.kernel", CONV1D),
            Name(f"model.encoder.conv{number}.bias", f"front.{layer}.bias"),
        ]
    for stack in ("encoder", "decoder"):
        around += layer_norm(f"model.{stack}.layer_norm", f"{stack}.norm")
        around += layers(stack, model, BIASED)
    return around if _tied(config) else [*around, *linear("proj_out", "head.logits")]


FAMILY = Family(("whisper",), build, names, prefix="model.", ignored=(r"^proj_out\.weight$",))
