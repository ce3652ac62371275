"""Runs a recipe: trains it by one driver or by both, judges it, and keeps what came of it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras

from tfbig import compat, parity
from tfbig.data import Split
from tfbig.recipes import files, show
from tfbig.recipes.recipe import Recipe
from tfbig.training import Loop

DRIVERS = ("fit", "loop", "both")


def train(
    recipe: Recipe,
    *,
    output: str | Path,
    driver: str = "both",
    epochs: int | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    verbose: str | int = 0,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Trains a recipe on its data, with Keras's defects mended, and writes the result.

    Written to `output`: `model.keras`, `history.json`, `scores.json`, `curves.png`; with both
    drivers also `model_loop.keras`, `parity.json` and `parity.png`; and `run.json`, how it was
    trained: its seed tells `tfbig evaluate` which rows were held out. Without matplotlib there are
    no pictures, and the remedy is said.

    Args:
        recipe: see `tfbig.recipes.load`.
        output: a folder, made if need be.
        driver: `"fit"`, `"loop"`, or `"both"`, from the same seed.
        epochs, batch_size: the recipe's own if not given.
        seed: of the split, the weights and the order.
        verbose: Keras's progress bar.
        say: where the results are printed.

    Returns:
        The histories, one for each driver, and the scores of the last model.

    Raises:
        ValueError: for an unknown driver or a number that makes no sense.
        KeyboardInterrupt: after the model so far was saved, with a note that says where.
    """
    if driver not in DRIVERS:
        raise ValueError(f"There is no driver {driver!r}: choose from {', '.join(DRIVERS)}.")
    epochs = recipe.epochs if epochs is None else epochs
    batch_size = recipe.batch_size if batch_size is None else batch_size
    if epochs < 1 or batch_size < 1:
        raise ValueError(
            f"epochs and batch_size are at least 1, and are {epochs} and {batch_size}."
        )
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    split = recipe.data(seed)
    settings = {
        "recipe": recipe.name,
        "driver": driver,
        "epochs": epochs,
        "batch_size": batch_size,
        "seed": seed,
    }
    models: dict[str, keras.Model] = {}
    histories: dict[str, dict[str, list[float]]] = {}
    with compat.fixed():
        for name in ("fit", "loop") if driver == "both" else (driver,):
            keras.utils.set_random_seed(seed)
            model = models[name] = recipe.model(split)
            fit = model.fit if name == "fit" else Loop(model).fit
            # Ours and not model.history, which is not there before the first step.
            history = keras.callbacks.History()
            histories[name] = history.history  # which Keras fills
            try:
                fit(
                    split.x_train,
                    split.y_train,
                    epochs=epochs,
                    batch_size=batch_size,
                    verbose=verbose,
                    callbacks=[history],
                )
            except KeyboardInterrupt as interrupt:
                done = len(history.history.get("loss", []))
                written = _save_training(output, models, histories, settings)
                interrupt.add_note(
                    f"Stopped {name} with {done} of {epochs} epochs in its history. "
                    f"Written to {output}: {', '.join(written)}. To train to the end, run the same "
                    f"command again: it starts anew."
                )
                raise
            histories[name] = history.history
    first = next(iter(models.values()))
    written = _save_training(output, models, histories, settings)
    say(show.histories(histories))
    report = None
    if driver == "both":
        report = gradients(recipe, first, split)
        say(f"\nOne batch of {recipe.batch_size}, after training. {report}")
        written.append(files.write_json(report.to_json(), output / "parity.json"))
    scores = evaluate(recipe, first, split)
    values = {name: list(score) for name, score in scores.items()}
    written.append(files.write_json(values, output / "scores.json"))
    say("\n" + show.scores(scores, recipe.expected, len(split.x_test)))
    written += pictures(output, histories, recipe.summary, report, say)
    say(f"\nWritten to {output}: {', '.join(sorted(written))}")
    return {"history": histories, "scores": scores}


def pictures(
    output: Path,
    histories: dict[str, dict[str, list[float]]],
    title: str,
    report: parity.Report | None,
    say: Callable[[str], Any],
) -> list[str]:
    """Draws the curves of a training and the report of its gradients, where there is one.

    Returns:
        What was written; nothing without matplotlib, which costs the pictures and nothing else.
    """
    written = []
    try:
        written.append(files.write_figure(show.curves(histories, title), output / "curves.png"))
        if report:
            written.append(files.write_figure(report.plot(), output / "parity.png"))
    except ImportError as error:
        say(f"\n{error}")
    return written


def evaluate(recipe: Recipe, model: keras.Model, split: Split) -> dict[str, Any]:
    """The scores of a model on the held-out part."""
    return dict(recipe.score(split.y_test, model.predict(split.x_test, verbose=0)))


def gradients(recipe: Recipe, model: keras.Model, split: Split) -> parity.Report:
    """Compares `fit`'s gradients with the loop's, on the first training batch of a recipe."""
    rows = slice(recipe.batch_size)
    return parity.compare(model, split.x_train[rows], split.y_train[rows])


def seed_of(model: str | Path) -> int | None:
    """The seed with which a saved model was trained, from `run.json` beside it; `None` if unknown.

    Another seed splits the data otherwise: most of what it holds out this model has seen.
    """
    seed = settings_of(model).get("seed")
    return seed if isinstance(seed, int) else None


def settings_of(model: str | Path) -> dict[str, Any]:
    """How a saved model was trained, from `run.json` beside it; empty if that is not there."""
    try:
        settings = json.loads(Path(model).with_name("run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return settings if isinstance(settings, dict) else {}


def _save_training(
    output: Path,
    models: dict[str, keras.Model],
    histories: dict[str, dict[str, list[float]]],
    settings: dict[str, Any],
) -> list[str]:
    """Writes the models (the first driver's as model.keras), histories and settings."""
    first = next(iter(models))
    written = [
        files.write_model(
            model, output / ("model.keras" if name == first else f"model_{name}.keras")
        )
        for name, model in models.items()
    ]
    written.append(files.write_json(histories, output / "history.json"))
    written.append(files.write_json(settings, output / "run.json"))
    return written
