"""Whether a loop does something else than `fit`: by its own comparison, not by `tfbig.parity`."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from faults.inject_update import FAULTS
from faults.loop import OWN_OPTIMIZER, Loop, correct, make_step, make_train
from faults.networks import BATCH, ROWS, Data, Setup, batch_weights, build, data

STEPS, EPOCHS = 3, 2
LEAST = 1e-4  # relative; below it a difference is not called an effect


def _flat(values: Sequence[Any]) -> np.ndarray:
    arrays = [np.asarray(v, "float64").ravel() for v in values]
    return np.concatenate([*arrays, np.zeros(1)])


def _state(model: keras.Model, optimizer: Any = None) -> dict[str, np.ndarray]:
    optimizer = optimizer or model.optimizer
    seeds = [v for v in model.non_trainable_variables if "seed" in v.path]
    frozen = {id(v) for v in (*seeds, *model.trainable_variables)}
    slots = [
        v for v in optimizer.variables if "float" in str(v.dtype) and v.name != "learning_rate"
    ]
    return {
        "weights": _flat(model.trainable_variables),
        "statistics": _flat([v for v in model.variables if id(v) not in frozen]),
        "seeds": _flat(seeds),
        "slots": _flat(slots),
        "steps": _flat([optimizer.iterations]),
    }


def _trace(before: dict, after: dict, losses: Any) -> dict[str, np.ndarray]:
    change = {
        name: v - before[name] if len(v) == len(before[name]) else v for name, v in after.items()
    }
    if not change["steps"].any():  # the update was made by hand, or by an optimizer thrown away
        del change["steps"], change["slots"]
    return change if losses is None else {**change, "logs": _flat([losses])}


def traced_fit(setup: Setup, given: Data, mode: str) -> dict[str, np.ndarray]:
    """What stock `fit` does, run eagerly so that nothing need be traced.

    The state is taken before `fit` returns: then it puts an average of the weights in their place,
    where the optimizer keeps one.
    """
    model = build(setup)
    model.run_eagerly = not setup.jit_compile
    before = _state(model)
    steps = {"batch_size": BATCH, "epochs": STEPS if mode == "step" else EPOCHS}
    last: dict[str, np.ndarray] = {}
    keep = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: last.update(_state(model)))
    history = model.fit(
        given.x,
        given.y,
        sample_weight=given.sample_weight,
        class_weight=given.class_weight,
        shuffle=setup.shuffle,
        verbose=0,
        callbacks=[keep],
        **steps,
    )
    return _trace(before, last, history.history["loss"])


def traced_loop(
    setup: Setup, given: Data, mode: str, make: Callable[[Setup, keras.Model], Callable]
) -> dict[str, np.ndarray]:
    """What a loop does in as many steps, or epochs."""
    model = build(setup)
    loop = make(setup, model)
    own = OWN_OPTIMIZER.get(loop)
    before = _state(model, own)
    if mode == "train":
        logs = loop(model, given.x, given.y, EPOCHS)
        return _trace(before, _state(model, own), logs["loss"])
    weights = batch_weights(setup, given)
    logs = [loop(model, given.x, given.y, weights) for _ in range(STEPS)]
    losses = [float(v["loss"]) for v in logs] if logs[0] else None
    return _trace(before, _state(model, own), losses)


def difference(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> float:
    """The greatest relative difference over the groups; infinite where one is not finite."""
    worst = 0.0
    for name in a.keys() & b.keys():
        v, w = a[name], b[name]
        if v.shape != w.shape:  # an optimizer that one of the two never built
            continue
        size = max(np.linalg.norm(v), np.linalg.norm(w))
        apart = float(np.linalg.norm(v - w) / size) if size else 0.0
        worst = max(worst, apart if np.isfinite(apart) else np.inf)
    return worst


def rows_of(mode: str) -> int:
    return BATCH if mode == "step" else ROWS


def compose(ids: Sequence[str]) -> Callable[[Loop], Loop]:
    """What these faults make of a loop, in this order."""

    def change(loop: Loop) -> Loop:
        for id in ids:
            loop = FAULTS[id].change(loop)
        return loop

    return change


def faulty(ids: Sequence[str], mode: str) -> Callable[[Setup, keras.Model], Callable]:
    """Makes the user's function with these faults; the correct one without any."""

    def make(setup: Setup, model: keras.Model) -> Callable:
        loop = compose(ids)(correct(setup, model))
        return make_train(loop) if mode == "train" else make_step(loop)

    return make


def parts_changed(ids: Sequence[str], setup: Setup) -> set[str]:
    """The parts of the loop that faults replace."""
    base = correct(setup, build(setup))
    loop = compose(ids)(base)
    return {
        f.name
        for f in dataclasses.fields(Loop)
        if getattr(loop, f.name) is not getattr(base, f.name)
    }


def mode_of(ids: Sequence[str]) -> str:
    return "train" if any(FAULTS[id].mode == "train" for id in ids) else "step"


def why_excluded(ids: Sequence[str], setup: Setup) -> str:
    """The reason why these faults cannot be told in this setup, or an empty string.

    Runs fit, the correct loop (for the noise), the faulty one and, for pairs, each fault alone:
    every one has to add something.
    """
    for id in ids:
        if reason := FAULTS[id].excluded(setup):
            return reason
    mode = mode_of(ids)
    given = data(setup, rows_of(mode))
    fit = traced_fit(setup, given, mode)
    noise = 0.0
    if not any(FAULTS[id].structural for id in ids):
        noise = difference(fit, traced_loop(setup, given, mode, faulty((), mode)))
        if noise > LEAST and setup.policy == "float32":
            return f"the correct loop differs by {noise:.0e}"
    least = max(LEAST, 20 * noise)
    try:
        both = traced_loop(setup, given, mode, faulty(ids, mode))
    except Exception as error:
        return f"the loop raises {type(error).__name__}"
    if difference(fit, both) <= least:
        return "no effect"
    for id in ids if len(ids) > 1 else ():
        others = [other for other in ids if other != id]
        alone = traced_loop(setup, given, mode, faulty(others, mode))
        if difference(alone, both) <= least:
            return f"{id} adds nothing"
    return ""


def why_no_pair(ids: tuple[str, str], setup: Setup) -> str:
    """The reason why two faults exclude each other, told without running them."""
    a, b = (FAULTS[id] for id in ids)
    if a.id.split("/")[0] == b.id.split("/")[0]:
        return "the same cause"
    if a.structural or b.structural:
        return "order by chance: what the other adds cannot be checked"
    wants = a.wants(setup), b.wants(setup)
    for name in wants[0].keys() & wants[1].keys():
        if wants[0][name] != wants[1][name]:
            return f"they need another {name}"
    setup = a.setup(b.setup(setup))
    for fault in (a, b):
        if reason := fault.excluded(setup):
            return reason
    changed = [parts_changed([id], setup) for id in ids]
    if changed[0] & changed[1]:
        return f"both replace {', '.join(sorted(changed[0] & changed[1]))}"
    if mode_of(ids) == "train" and any("compute" in c for c in changed):
        return "parts of a batch, and a last batch that is shorter"
    return ""


def why_not_correct(make: Callable, mode: str, setup: Setup) -> str:
    """Why a loop that is said to be correct is none, or an empty string."""
    given = data(setup, rows_of(mode))
    fit, loop = traced_fit(setup, given, mode), traced_loop(setup, given, mode, make)
    # What a loop reports is its own affair: nothing, the loss of the batch, or the mean until then.
    if mode == "step":
        loop.pop("logs", None)
    apart = difference(fit, loop)
    least = 20 * LEAST if setup.policy == "float32" else 0.3
    return f"differs from fit by {apart:.0e}" if apart > least else ""
