"""What is to be trained, on what, and for how long: a network from scratch, or one to fine-tune."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from tfbig.interop.known import load_known
from tfbig.interop.tokenizer import Tokenizer
from tfbig.models import language_model
from tfbig.recipes.language_data import (
    LanguageData,
    byte_level_tokenizer,
    conversation_data,
    is_conversations,
    split_of,
    text_data,
)
from tfbig.recipes.language_scores import check_is_language_model, compressors
from tfbig.recipes.language_sizes import Size, size_of

# Without it Adam's first steps, whose second moments are not known yet, throw the weights about.
WARM_UP = 0.1

# To fine-tune: a fraction of the peak of pre-training, so that what was learnt stays.
TUNING_LEARNING_RATE = 5e-5
TUNING_LENGTH = 256
TUNING_BATCH_SIZE = 4


@dataclass(frozen=True)
class Plan:
    """A training.

    Attributes:
        model: makes a network, compiled for this plan; another each time, after the same seed the
            same.
        data, tokenizer: what it is trained on and judged by.
        length, batch_size, steps: rows and how many batches of them.
        beside: bits per byte of other ways to write the held-out text.
        description: all of it, to be printed.
        settings: what `run.json` says.
    """

    model: Callable[[], keras.Model]
    data: LanguageData
    tokenizer: Tokenizer
    length: int
    batch_size: int
    steps: int
    beside: dict[str, float]
    description: str
    settings: dict[str, Any]


@dataclass(frozen=True)
class Changes:
    """What the user wants otherwise; None: as it follows from the size.

    Attributes:
        epochs: passes over the training side.
        batch_size: rows in a step.
        learning_rate: at its peak.

    Raises:
        ValueError: for a number that makes no sense.
    """

    epochs: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be above 0, and was {value}.")


def from_scratch(
    size: str | int, data: str | Path | None, changes: Changes, seed: int, output: Path
) -> Plan:
    """A tokenizer and a network of a size, of the user's text or of the standard library.

    The tokenizer learns from the training side alone.
    """
    numbers = size_of(size)
    split = split_of(data, seed)
    tokenizer = byte_level_tokenizer((text for _, text in split.train), numbers.vocabulary_size)
    corpus = text_data(split, tokenizer, output / "shards")
    batch_size = changes.batch_size or numbers.batch_size
    learning_rate = changes.learning_rate or numbers.learning_rate
    steps = numbers.steps(corpus.tokens)
    if changes.epochs:
        steps = changes.epochs * corpus.steps_per_epoch(numbers.length, batch_size)
    elif changes.batch_size:
        steps = max(1, steps * numbers.batch_size // batch_size)

    def model() -> keras.Model:
        network = _network(numbers, tokenizer.vocabulary_size)
        return compiled(network, muon(learning_rate, steps))

    passes = steps * batch_size * numbers.length / corpus.tokens
    return Plan(
        model=model,
        data=corpus,
        tokenizer=tokenizer,
        length=numbers.length,
        batch_size=batch_size,
        steps=steps,
        beside=compressors([text for _, text in split.held_out]),
        description=(
            f"{corpus.description}\n\nSize {size}:\n{numbers.describe()}\n"
            f"{steps} steps of {batch_size} rows of {numbers.length} tokens at a learning rate of "
            f"{learning_rate:g}: {passes:.2f} passes over the training side"
        ),
        settings={"size": size, "learning_rate": learning_rate},
    )


def _network(size: Size, vocabulary_size: int) -> keras.Model:
    # A small corpus has fewer tokens than the size allows.
    return language_model(
        vocabulary_size,
        size.num_layers,
        size.num_heads,
        size.hidden_dim,
        intermediate_dim=size.intermediate_dim,
        name="language",
    )


def tuning(
    name_or_path: str | Path, data: str | Path | None, changes: Changes, seed: int, output: Path
) -> Plan:
    """A network that is there, to be trained further on texts or on conversations' answers.

    Raises:
        ValueError: if it has no tokenizer, or does not predict next tokens.
    """
    network, tokenizer = load_known(name_or_path)
    check_is_language_model(network)
    if tokenizer is None:
        raise ValueError(
            f"There is no tokenizer beside {str(name_or_path)!r}: put its tokenizer.json there."
        )
    loaded = [network]
    del network  # else it would be in memory beside the one that is trained
    corpus: LanguageData
    beside: dict[str, float] = {}
    if data is not None and is_conversations(data):
        corpus = conversation_data(data, tokenizer, TUNING_LENGTH, seed)
    else:
        split = split_of(data, seed)
        corpus = text_data(split, tokenizer, output / "shards")
        beside = compressors([text for _, text in split.held_out])
    batch_size = changes.batch_size or TUNING_BATCH_SIZE
    learning_rate = changes.learning_rate or TUNING_LEARNING_RATE
    epochs = changes.epochs or 1
    steps = epochs * corpus.steps_per_epoch(TUNING_LENGTH, batch_size)

    def model() -> keras.Model:
        network = loaded.pop() if loaded else load_known(name_or_path)[0]
        return compiled(network, adamw(learning_rate, steps))

    return Plan(
        model=model,
        data=corpus,
        tokenizer=tokenizer,
        length=TUNING_LENGTH,
        batch_size=batch_size,
        steps=steps,
        beside=beside,
        description=(
            f"{corpus.description}\n\nFine-tuning {name_or_path}: {steps} steps of {batch_size} "
            f"rows of {TUNING_LENGTH} tokens at a learning rate of {learning_rate:g}: {epochs} "
            f"passes over the training side"
        ),
        settings={"model": str(name_or_path), "learning_rate": learning_rate},
    )


def schedule(learning_rate: float, steps: int) -> keras.optimizers.schedules.CosineDecay:
    """A tenth of the steps up to the rate, then a cosine down to 0.

    >>> rate = schedule(0.01, steps=20)
    >>> [round(float(rate(step)), 4) for step in (0, 1, 2, 11, 20)]
    [0.0, 0.005, 0.01, 0.005, 0.0]
    """
    warm_up = max(1, round(WARM_UP * steps))
    return keras.optimizers.schedules.CosineDecay(
        0.0, max(1, steps - warm_up), warmup_target=learning_rate, warmup_steps=warm_up
    )


def compiled(model: keras.Model, optimizer: keras.optimizers.Optimizer) -> keras.Model:
    """Compiles a language model for rows that may have padding.

    The loss is the mean over the tokens that count: `mean_with_sample_weight` divides by the
    weights, where Keras's own would divide by the places, those of padding too.
    """
    loss = keras.losses.SparseCategoricalCrossentropy(
        from_logits=True, reduction="mean_with_sample_weight"
    )
    # Measured on two cores: XLA makes a step 2 % faster, and takes 4 seconds more to compile it.
    model.compile(optimizer, loss=loss, jit_compile=False)
    return model


def muon(learning_rate: float, steps: int) -> keras.optimizers.Muon:
    """To train from scratch: Muon on the matrices, and AdamW on token vectors and norms.

    Measured at size tiny, a whole schedule of 200 steps: 4.67 nats a token on held-out text (rates
    0.01 and 0.02 alike), and 5.84 by AdamW (0.008, and 5.86 at 0.004); a step takes 10 % longer.
    Our projections are matrices, so all of them get it; Keras's own attention has kernels of three
    axes, which do not (V20).
    """
    return keras.optimizers.Muon(
        schedule(learning_rate, steps), adam_beta_2=0.95, weight_decay=0.1, adam_weight_decay=0.1
    )


def adamw(learning_rate: float, steps: int) -> keras.optimizers.AdamW:
    """To fine-tune: what nearly all published models were trained by.

    Muon's steps, of equal size in all directions, would undo what AdamW has made of a matrix.
    """
    return keras.optimizers.AdamW(
        schedule(learning_rate, steps), beta_2=0.95, weight_decay=0.1, global_clipnorm=1.0
    )
