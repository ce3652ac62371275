"""That the faulty loops of the threads differ from `fit`, and that the correct ones do not.

    .venv/bin/python tests/benchmarks/check_thread_loops.py [part of a name]

Each case is run twice from one seed: by stock `model.fit`, and by its loop. Compared are the
gradient that the first update gets, all weights after three steps (or after the training), and
the logs where the loop returns some. Nothing of tfbig is used.
"""

import contextlib
import os
import pathlib
import sys
from collections.abc import Iterator

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(pathlib.Path(__file__).parent))

import keras
import numpy as np
import tensorflow as tf
from thread_loops import CORRECT, FAULTY, ThreadCase

STEPS = 3
SAME = 1e-5
DIFFERENT = 1e-4


@contextlib.contextmanager
def tap(variables: list) -> Iterator[dict]:
    """Within, what each variable's first update gets: id of the variable -> a tf.Variable."""
    seen = {id(v): tf.Variable(tf.fill(v.shape, np.nan)) for v in variables}
    base = next(c for c in keras.optimizers.SGD.__mro__ if "apply" in vars(c))
    stock = {c: vars(c)["apply"] for c in (base, keras.optimizers.LossScaleOptimizer)}
    depth = [0]

    def tapped(apply):
        def wrapper(self, grads, trainable_variables=None):
            grads = list(grads)
            if not depth[0]:
                for g, v in zip(grads, trainable_variables or self._trainable_variables):
                    if g is not None and id(v) in seen:
                        slot, g = seen[id(v)], tf.cast(tf.convert_to_tensor(g), tf.float32)
                        slot.assign(tf.where(tf.math.is_nan(slot), g, slot))
            depth[0] += 1
            try:
                return apply(self, grads, trainable_variables)
            finally:
                depth[0] -= 1

        return wrapper

    for c, apply in stock.items():
        c.apply = tapped(apply)
    try:
        yield seen
    finally:
        for c, apply in stock.items():
            c.apply = apply


def parts(case: ThreadCase) -> tuple:
    """x, y, and the weights as Keras's train_step sees them."""
    x, y, w = (*case.data(), None)[:3]
    if case.class_weight is not None:
        classes = np.array([case.class_weight[int(c)] for c in np.ravel(y)], "float32")
        w = classes if w is None else w * classes
    return x, y, w


def by_fit(case: ThreadCase, model: keras.Model, stock: bool) -> dict:
    """Logs of `fit`, by Keras's own train_step if `stock`."""
    if stock and type(model).train_step is not keras.Model.train_step:
        config = model.get_compile_config()
        model = keras.Model(model.inputs, model.outputs)  # The same layers, Keras's own step
        model.compile_from_config(config)
    x, y, w = (*case.data(), None)[:3]
    options = dict(case.options)
    if case.train is None:
        rows = len(keras.tree.flatten(x)[0])
        options = {"batch_size": rows, "epochs": STEPS, "shuffle": False}
    if y is None:
        options = {"epochs": options["epochs"], "shuffle": False}  # A Dataset has batches and order
    extra = {"sample_weight": w, "class_weight": case.class_weight, "verbose": 0}
    return model.fit(x, y, **options, **extra).history


def by_loop(case: ThreadCase, model: keras.Model) -> dict:
    """Logs of the loop: name -> a list over steps or epochs, or of the last one only."""
    x, y, w = parts(case)
    if case.train is not None:
        logs = case.train(model, x, y, case.options["epochs"]) or {}
        return {name: np.ravel(value).tolist() for name, value in logs.items()}
    if case.loop is None:
        return by_fit(case, model, stock=False)
    x, y = keras.tree.map_structure(tf.convert_to_tensor, (x, y))
    w = None if w is None else tf.convert_to_tensor(w)
    steps = [case.loop(model, x, y, w) or {} for _ in range(STEPS)]
    return {name: [float(s[name]) for s in steps] for name in steps[0]}


def run(case: ThreadCase, fit: bool) -> tuple[list, list, dict]:
    """Gradients and weights, by index of the variable, and logs."""
    keras.backend.clear_session()
    keras.utils.set_random_seed(1)
    model = case.build()
    with tap(model.trainable_variables) as seen:
        logs = by_fit(case, model, stock=True) if fit else by_loop(case, model)
    gradients = [seen[id(v)].numpy() for v in model.trainable_variables]  # NaN: never updated
    others = [v for v in model.non_trainable_variables if "seed" not in v.path]
    variables = [v.numpy() for v in [*model.trainable_variables, *others]]
    return gradients, variables, logs


def differences(case: ThreadCase) -> tuple[float, float, float]:
    """Of the first gradient, of the weights, of the logs, each relative to what `fit` has."""
    fit_g, fit_w, fit_logs = run(case, fit=True)
    loop_g, loop_w, loop_logs = run(case, fit=False)
    scale = max(np.nanmax(np.abs(g)) for g in fit_g)
    tapped = not all(np.isnan(g).all() for g in loop_g)  # Not if it updates by assign_sub
    gradient = weights = logs = 0.0
    for f, c in zip(fit_g, loop_g):
        if tapped:
            gradient = max(gradient, largest(np.nan_to_num(f) - np.nan_to_num(c)) / scale)
    for i, (f, c) in enumerate(zip(fit_w, loop_w)):
        if i < len(fit_g) and largest(fit_g[i]) < 1e-6 * scale:
            continue  # A bias before BatchNormalization: noise, which Adam makes large
        weights = max(weights, largest(f - c) / max(1.0, largest(f)))
    for name in set(fit_logs) & set(loop_logs):
        f = np.array(fit_logs[name][-len(loop_logs[name]) :])
        logs = max(logs, largest((f - loop_logs[name]) / np.maximum(1e-3, np.abs(f))))
    return gradient, weights, logs


def largest(values: np.ndarray) -> float:
    """Of the magnitudes; NaN counts as infinite."""
    return float(np.nan_to_num(np.abs(values), nan=np.inf).max())


def main(part: str = "") -> int:
    """Prints a line for each case; the number of cases that are not as they should be."""
    wrong = 0
    for case in (*FAULTY, *CORRECT):
        if part not in case.name:
            continue
        found = differences(case)
        as_told = max(found) > DIFFERENT if case.expected else max(found) < SAME
        wrong += not as_told
        ids = "/".join(sorted(case.expected)) or "correct"
        numbers = "  ".join(f"{name} {d:.1e}" for name, d in zip(("grad", "w", "logs"), found))
        print(f"{case.name:36} {case.thread:18} {ids:8} {numbers}", "" if as_told else "WRONG")
    print(f"{len(FAULTY)} faulty, {len(CORRECT)} correct, {wrong} not as told")
    return wrong


if __name__ == "__main__":
    sys.exit(min(1, main(*sys.argv[1:2])))
