"""Steps per second of `Loop.fit` beside `model.fit`, alternating in one run.

    python tests/benchmarks/bench_loop.py [--rounds=5]

The document's network, batches of 32, default arguments (progress bar into a null stream, as in a
terminal that nobody reads). Tracing is not counted: each driver trains one epoch before. Prints the
ratio of the medians, and what must be equal: the History of both.
"""

import argparse
import contextlib
import io
import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

from tfbig.models import NeuralNetwork
from tfbig.training import Loop


def build() -> keras.Model:
    keras.utils.set_random_seed(0)
    model = NeuralNetwork()
    model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
    return model


def data(rows: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, 30)).astype("float32")
    return x, (x[:, :1] + 0.5 * rng.normal(size=(rows, 1)) > 0).astype("float32")


def measure(rows: int, epochs: int, rounds: int, seed: bool) -> dict:
    x, y = data(rows)
    models = {"fit": build(), "loop": build()}
    fits = {"fit": models["fit"].fit, "loop": Loop(models["loop"]).fit}
    seconds: dict[str, list[float]] = {"fit": [], "loop": []}
    first, histories = {}, {"fit": [], "loop": []}
    for round_ in range(rounds + 1):
        # The order is swapped each round: the second to run meets a warmer machine.
        for name in sorted(fits, reverse=bool(round_ % 2)):
            if seed:
                keras.utils.set_random_seed(round_)
            begin = time.perf_counter()
            with contextlib.redirect_stdout(io.StringIO()):
                history = fits[name](x, y, batch_size=32, epochs=epochs if round_ else 1)
            taken = time.perf_counter() - begin
            histories[name].append(history.history["loss"])
            if round_:
                seconds[name].append(taken)
            else:
                first[name] = taken
    steps = -(-rows // 32) * epochs
    median = {name: statistics.median(s) for name, s in seconds.items()}
    difference = max(
        abs(a - b)
        for h, g in zip(histories["fit"], histories["loop"], strict=True)
        for a, b in zip(h, g, strict=True)
    )
    return {
        "rows": rows,
        "epochs": epochs,
        "fit_steps_per_s": steps / median["fit"],
        "loop_steps_per_s": steps / median["loop"],
        "ratio": median["fit"] / median["loop"],
        "history_difference": difference,
        "first_epoch_fit_s": first["fit"],
        "first_epoch_loop_s": first["loop"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    print(
        f"{'rows':>7} {'epochs':>6} {'seed':>5} {'fit/s':>8} {'loop/s':>8} {'ratio':>6} "
        f"{'History':>9}  first epoch, traced: fit, loop"
    )
    for rows, epochs in ((455, 100), (32_000, 3)):
        for seed in (True, False):
            r = measure(rows, epochs, rounds, seed)
            print(
                f"{rows:7d} {epochs:6d} {seed!s:>5} {r['fit_steps_per_s']:8.0f} "
                f"{r['loop_steps_per_s']:8.0f} {r['ratio']:6.2f} {r['history_difference']:9.1e}  "
                f"{r['first_epoch_fit_s']:.2f} s, {r['first_epoch_loop_s']:.2f} s"
            )


if __name__ == "__main__":
    main()
