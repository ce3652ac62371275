"""Runs a recipe: trains it by one driver or by both, judges it, and keeps what came of it."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras

from tfbig import compat, parity
from tfbig.data import Split
from tfbig.recipes import show
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
    drivers also `model_loop.keras`, `parity.json` and `parity.png`.

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
    models, histories = {}, {}
    with compat.fixed():
        for name in ("fit", "loop") if driver == "both" else (driver,):
            keras.utils.set_random_seed(seed)
            model = models[name] = recipe.model(split)
            fit = model.fit if name == "fit" else Loop(model).fit
            try:
                history = fit(
                    split.x_train,
                    split.y_train,
                    epochs=epochs,
                    batch_size=batch_size,
                    verbose=verbose,
                )
            except KeyboardInterrupt as interrupt:
                histories[name] = model.history.history
                _save_model(model, output / "model.keras")
                _save_json(histories, output / "history.json")
                interrupt.add_note(
                    f"Saved the model so far and its history to {output}. To train to the end, "
                    f"run the same command again."
                )
                raise
            histories[name] = history.history
    first = next(iter(models.values()))
    _save_model(first, output / "model.keras")
    if driver == "both":
        _save_model(models["loop"], output / "model_loop.keras")
    _save_json(histories, output / "history.json")
    say(show.histories(histories))
    if driver == "both":
        report = gradients(recipe, first, split)
        say(f"\nOne batch of {recipe.batch_size}, after training. {report}")
        _save_json(report.to_json(), output / "parity.json")
        _save_figure(report.plot(), output / "parity.png")
    scores = evaluate(recipe, first, split)
    _save_json({name: list(score) for name, score in scores.items()}, output / "scores.json")
    say("\n" + show.scores(scores, recipe.expected, len(split.x_test)))
    _save_figure(show.curves(histories, recipe.summary), output / "curves.png")
    say(f"\nWritten to {output}: {', '.join(sorted(p.name for p in output.iterdir()))}")
    return {"history": histories, "scores": scores}


def evaluate(recipe: Recipe, model: keras.Model, split: Split) -> dict[str, Any]:
    """The scores of a model on the held-out part."""
    return dict(recipe.score(split.y_test, model.predict(split.x_test, verbose=0)))


def gradients(recipe: Recipe, model: keras.Model, split: Split) -> parity.Report:
    """Compares `fit`'s gradients with the loop's, on the first training batch of a recipe."""
    rows = slice(recipe.batch_size)
    return parity.compare(model, split.x_train[rows], split.y_train[rows])


def _write(path: Path, write: Callable[[Path], Any]) -> None:
    """Writes to a temporary name and renames: a full disk or an interrupt leaves the old file."""
    temporary = path.with_name(f".{os.getpid()}_{path.name}")
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _save_model(model: keras.Model, path: Path) -> None:
    _write(path, model.save)


def _save_json(values: Any, path: Path) -> None:
    _write(path, lambda temporary: temporary.write_text(json.dumps(values, indent=2) + "\n"))


def _save_figure(figure: Any, path: Path) -> None:
    _write(path, lambda temporary: figure.savefig(temporary, dpi=120))
