"""Seconds per step of a 14 M-parameter transformer of Keras layers: `Loop.fit` beside `model.fit`.

    python tests/benchmarks/bench_transformer.py [--rounds=5] [--steps=4]

Alternating in one run; the ratio of the medians. Also the time to the first result, tracing
included, and the parity of the gradients.
"""

import argparse
import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

from tfbig import parity
from tfbig.training import Loop

VOCABULARY, LENGTH, WIDTH, LAYERS, BATCH = 8000, 64, 384, 6, 8


def build() -> keras.Model:
    """Six causal blocks of width 384 and a head of its own, of Keras's layers."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    tokens = keras.Input((LENGTH,), dtype="int32")
    h = layers.Embedding(VOCABULARY, WIDTH)(tokens)
    for _ in range(LAYERS):
        a = layers.LayerNormalization()(h)
        h = layers.Add()([h, layers.MultiHeadAttention(6, 64)(a, a, use_causal_mask=True)])
        f = layers.Dense(4 * WIDTH, "gelu")(layers.LayerNormalization()(h))
        h = layers.Add()([h, layers.Dropout(0.1)(layers.Dense(WIDTH)(f))])
    logits = layers.Dense(VOCABULARY // 4)(layers.LayerNormalization()(h))
    model = keras.Model(tokens, logits)
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=4)
    options = parser.parse_args()
    x = np.random.default_rng(0).integers(0, VOCABULARY, (BATCH * options.steps, LENGTH))
    y = x % (VOCABULARY // 4)
    models = {"fit": build(), "loop": build()}
    print(f"{models['fit'].count_params() / 1e6:.1f} M parameters")
    fits = {"fit": models["fit"].fit, "loop": Loop(models["loop"]).fit}
    seconds: dict[str, list[float]] = {"fit": [], "loop": []}
    for round_ in range(options.rounds + 1):
        for name in sorted(fits, reverse=bool(round_ % 2)):
            begin = time.perf_counter()
            fits[name](x, y, batch_size=BATCH, verbose=0)
            taken = time.perf_counter() - begin
            if round_:
                seconds[name].append(taken / options.steps)
            else:
                print(f"{name:5s} first epoch, traced: {taken:.2f} s")
    median = {name: statistics.median(s) for name, s in seconds.items()}
    print(
        f"seconds per step: fit {median['fit']:.3f}, loop {median['loop']:.3f}, "
        f"ratio {median['fit'] / median['loop']:.2f}"
    )
    begin = time.perf_counter()
    report = parity.compare(models["fit"], x[:2], y[:2])
    print(f"{report.verdict} ({time.perf_counter() - begin:.1f} s)")


if __name__ == "__main__":
    main()
