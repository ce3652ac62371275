"""Where do two steps first part? The first layer whose output differs, then whose gradient does."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from tfbig.parity import state as states
from tfbig.parity.arrays import error
from tfbig.parity.facts import Batch, Step
from tfbig.parity.observe import observing
from tfbig.parity.replay import Forward, gradient
from tfbig.training import tap


def parting(step: Step, loop: Callable[[keras.Model, Batch], Any]) -> str:
    """In words: the step, the first layer whose output differs, the last whose gradient does.

    Args:
        step: of the loop, which is taken once more.
        loop: `(model, batch)`.
    """
    model = step.model
    with tap(model) as fit:
        Forward(model, step.begin, step.batch.x)
        ours = {path: list(outputs) for path, outputs in fit.items()}
    states.put(model, step.begin)
    with tap(model) as seen, observing(model) as observed:
        loop(model, step.batch)
        theirs = {path: list(outputs) for path, outputs in seen.items()}
    observed.restore_own_optimizers()
    said = [f"step {step.number}"]
    for path, outputs in ours.items():
        if path not in theirs:
            continue
        a, b = (keras.tree.flatten(o[0]) for o in (outputs, theirs[path]))
        a, b = ([np.asarray(t) for t in side if t is not None] for side in (a, b))
        if len(a) != len(b) or any(u.shape != v.shape for u, v in zip(a, b)):
            said.append(f"the output of {path}, which has another shape")
            break
        if error(a, b) > step.tolerance:
            said.append(f"the output of {path} (it differs by {error(a, b):.2g})")
            break
    else:
        said.append("no layer's output")
    fit_gradient, _ = gradient(model, step.begin, step.batch)
    loop_gradient: list[np.ndarray | None] = [None] * len(fit_gradient)
    for g in step.gradients:
        loop_gradient = step.by_variable(g.values, g.sources)
    differing = [
        v.path
        for v, a, b in zip(model.trainable_variables, fit_gradient, loop_gradient)
        if a is not None and (b is None or error([a], [b]) > step.tolerance)
    ]
    # Back-propagation begins at the end.
    said.append(f"the gradient of {differing[-1]}" if differing else "no gradient")
    return ", ".join(said)
