"""The catalogue is whole; the numbers it is told by; how a loop is called, and where it is."""

import functools
import os
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays as numpy_arrays

from tfbig.parity import CATALOGUE, LoopError, run
from tfbig.parity.arrays import error, ledger, norm, plus, total
from tfbig.parity.causes import epoch, forward, logs, loss, row, scale, update
from tfbig.parity.facts import Batch
from tfbig.parity.observe import dense, site
from tfbig.parity.stages.handover import clipped

IDS = [f"D{n:02d}" for n in range(1, 67)]
FILES = (forward, loss, scale, update, logs, epoch)
HARMLESS = {"D52", "D53"}


def test_every_cause_has_its_row():
    assert set(IDS) <= set(CATALOGUE) <= {*IDS, "D67"}
    assert list(CATALOGUE) == sorted(CATALOGUE)
    assert all(CATALOGUE[id].id == id for id in CATALOGUE)


def test_rows_of_one_id_say_one_thing():
    """A cause that shows in several stages (D28) has a hypothesis in each, and one title."""
    rows = [r for file in FILES for r in vars(file).values() if isinstance(r, row.Row)]
    rows += [r for file in FILES for r in file.ROWS]
    assert {r.id for r in rows} == set(CATALOGUE)
    for r in rows:
        assert (r.title, r.kind) == (CATALOGUE[r.id].title, CATALOGUE[r.id].kind), r.id
    titles = [CATALOGUE[id].title for id in CATALOGUE]
    assert len(set(titles)) == len(titles)


def test_every_row_is_filled():
    for id, of in CATALOGUE.items():
        assert of.title.strip() == of.title and of.mend.strip() == of.mend, id
        assert len(of.title) > 10 and len(of.mend) > 5 and "\n" not in of.title + of.mend, id
        assert of.kind in (row.FAULT, row.HARMLESS, row.LATER), id
        assert of.sees in (row.BATCH, row.EPOCH, row.REPLICAS), id
        assert (of.kind == row.HARMLESS) is (id in HARMLESS), id
        assert of.hypothesis is None or (callable(of.hypothesis) and of.kind == row.FAULT), id
        assert len(set(of.threads)) == len(of.threads), id
        for thread in of.threads:
            assert re.fullmatch(r"[\w.-]+#\d+", thread), thread


def test_ledger_by_hand():
    """(5, 7) = 2 (1, 2) + 3 (1, 1); of (1, 0) the column (1, 1) explains half, and leaves 1/2."""
    found = ledger([np.array([5, 7])], {"a": [np.array([1, 2])], "b": [np.array([1, 1])]})
    assert found.coefficients == pytest.approx({"a": 2, "b": 3}) and found.error < 1e-12
    found = ledger([np.array([1, 0])], {"a": [np.array([1, 1])]})
    assert found.coefficients == pytest.approx({"a": 0.5})
    assert found.error == pytest.approx(0.5**0.5)
    # Per array: the first is explained, of the second (1, 1) nothing is.
    found = ledger([np.array([4.0]), np.ones(2)], {"a": [np.array([2.0]), np.array([1, -1])]})
    assert found.coefficients == pytest.approx({"a": (4 * 2) / (4 + 1 + 1)})
    assert found.error == pytest.approx(np.hypot(1 - 4 / 3, 1 + 4 / 3) / 2**0.5)


def test_ledger_of_nothing():
    assert ledger([np.ones(2)], {}).error == 1.0 and ledger([], {}).error == 0.0
    found = ledger([None, np.ones(2)], {"a": [np.ones(3), None], "b": [None, np.ones(2)]})
    assert found.coefficients == pytest.approx({"a": 0, "b": 1}, abs=1e-12) and found.error < 1e-9
    found = ledger([np.array([np.nan])], {"a": [np.ones(1)]})
    assert found.error == float("inf") and np.isnan(found.coefficients["a"])
    assert ledger([np.zeros(2)], {"a": [np.zeros(2)]}).coefficients == {"a": 0.0}


numbers = st.floats(-100, 100, allow_subnormal=False).map(lambda v: round(v, 3))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.lists(numbers, min_size=1, max_size=4))
def test_ledger_recovers_random_columns(seed, coefficients):
    rng = np.random.default_rng(seed)
    shapes = [(3, 2), (4,), (), (2, 2, 2)]
    columns = {
        str(i): [rng.normal(size=shape) * 10.0 ** rng.integers(-3, 4) for shape in shapes]
        for i in range(len(coefficients))
    }
    terms = [(c, column) for c, column in zip(coefficients, columns.values())]
    found = ledger(plus([None] * len(shapes), terms), columns)
    expected = dict(zip(columns, coefficients))
    size = max(map(abs, coefficients))
    assert found.coefficients == pytest.approx(expected, rel=1e-6, abs=1e-6 * size)
    assert found.error < 1e-6


def test_error_by_hand():
    """|a| = 5, |a - b| = 1; the larger of two; what is 1e-6 of the whole is no difference."""
    a = np.array([3.0, 4.0])
    assert error([a], [np.array([3.0, 5.0])]) == pytest.approx(0.2)
    assert error([a, a], [np.array([3.0, 5.0]), np.zeros(2)]) == pytest.approx(1.0)
    assert error([a, np.array([1e-9])], [a, np.array([-1e-9])]) == 0.0
    assert error([a, None], [a, None]) == 0.0 == error([], [])
    assert error([a, None], [a, np.ones(2)]) == pytest.approx(2**0.5 / 5e-6)
    assert error([a], [None]) == 1.0 and error([np.zeros(2)], [a]) == float("inf")
    nan = np.array([np.nan, 1.0])
    assert error([nan], [nan]) == 0.0 and error([nan], [a]) == error([a], [nan]) == float("inf")


@settings(max_examples=50, deadline=None)
@given(
    numpy_arrays("float64", (2, 3), elements=numbers),
    numpy_arrays("float64", (2, 3), elements=numbers),
    st.floats(0.01, 100),
)
def test_error_is_zero_of_the_same_and_knows_no_scale(a, b, factor):
    assert error([a], [a]) == 0.0
    assert error([factor * a], [factor * b]) == pytest.approx(error([a], [b]), rel=1e-6)
    if np.any(a):
        assert error([a], [b]) == pytest.approx(np.linalg.norm(a - b) / np.linalg.norm(a))
        assert error([a], [(1 + factor) * a]) == pytest.approx(factor)


def test_sums_and_norms_by_hand():
    assert total([None, np.array([1.0]), np.array([2.0])]) == 3.0 and total([None]) is None
    assert norm([np.array([3.0]), None, np.array([[4.0]])]) == 5.0
    made = plus([np.array([1.0]), None, None], [(2.0, [np.array([3.0]), np.array([4.0]), None])])
    assert [None if m is None else float(m[0]) for m in made] == [7.0, 8.0, None]
    rows = tf.IndexedSlices(tf.constant([[1.0], [2.0], [4.0]]), tf.constant([0, 2, 0]), (3, 1))
    assert dense(rows).ravel().tolist() == [5.0, 0.0, 2.0] and dense(None) is None


@pytest.mark.parametrize("kind", ["clipnorm", "global_clipnorm", "clipvalue", None])
def test_clipping_is_tensorflows(kind):
    """The first gradient is beyond each limit, the second within."""
    rng = np.random.default_rng(1)
    gradients = [rng.normal(size=(3, 2)).astype("float32"), np.full(4, 0.1, "float32")]
    expected = {
        "clipnorm": [tf.clip_by_norm(g, 0.7) for g in gradients],
        "global_clipnorm": tf.clip_by_global_norm(gradients, 0.7)[0],
        "clipvalue": [tf.clip_by_value(g, -0.7, 0.7) for g in gradients],
        None: gradients,
    }[kind]
    plain = keras.optimizers.SGD(**({kind: 0.7} if kind else {}))
    for optimizer in (plain, keras.optimizers.LossScaleOptimizer(plain)):
        for ours, theirs in zip(clipped(optimizer, gradients), expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    assert clipped(plain, [None, np.zeros(2)])[0] is None


class Holder:
    def method(self, model, x, y):
        return "method", model, x, y

    def __call__(self, x, y, sample_weight):
        return "call", x, y, sample_weight


M, X, Y, W = "model", np.zeros(1), np.ones(1), np.full(1, 2.0)
# The loop -> what it is called with, with weights and without.
SIGNATURES = {
    "model, x, y, w": (lambda model, x, y, w: (model, x, y, w), (M, X, Y, W), (M, X, Y, None)),
    "four of any name": (lambda a, b, c, d: (a, b, c, d), (M, X, Y, W), (M, X, Y, None)),
    "model, x, y": (lambda model, x, y: (model, x, y), (M, X, Y), (M, X, Y)),
    "net, x, y": (lambda net, x, y: (net, x, y), (M, X, Y), (M, X, Y)),
    "x, y, w": (lambda x, y, w: (x, y, w), (X, Y, W), (X, Y, None)),
    "x, y": (lambda x, y: (x, y), (X, Y), (X, Y)),
    "batch": (lambda batch: batch, (X, Y, W), (X, Y)),
    "model, batch": (lambda model, batch: (model, *batch), (M, X, Y, W), (M, X, Y)),
    "weights with a default": (
        lambda model, x, y, sample_weight=None: (model, x, y, sample_weight),
        (M, X, Y, W),
        (M, X, Y, None),
    ),
    "x, y, default": (lambda x, y, w=None: (x, y, w), (X, Y, W), (X, Y, None)),
    "an option by name": (lambda model, x, y, *, log=False: (model, x, y), (M, X, Y), (M, X, Y)),
    "options": (lambda model, x, y, **options: (model, x, y), (M, X, Y), (M, X, Y)),
    "all": (lambda *arguments: arguments, (M, X, Y, W), (M, X, Y, None)),
    "a method": (Holder().method, ("method", M, X, Y), ("method", M, X, Y)),
    "an object": (Holder(), ("call", X, Y, W), ("call", X, Y, None)),
    "partial": (
        functools.partial(lambda k, model, x, y: (k, model, x, y), 1), (1, M, X, Y), (1, M, X, Y)
    ),
}  # fmt: skip


@pytest.mark.parametrize("weight", [W, None], ids=["weights", ""])
def test_how_a_loop_is_called(weight):
    wrong = {}
    for name, (loop, *expected) in SIGNATURES.items():
        try:
            got = run.caller(loop)(M, Batch(X, Y, weight, weight))
        except TypeError as raised:
            got = (raised,)
        wanted = expected[weight is None]
        if len(got) != len(wanted) or not all(a is b for a, b in zip(got, wanted)):
            wrong[name] = got
    assert not wrong


def test_a_function_of_tensorflow_is_called_as_the_python_one():
    @tf.function
    def loop(model, x, y):
        return x + y if model == M else x

    assert float(run.caller(loop)(M, Batch(X, Y, W, W))[0]) == 1.0


def test_a_loop_of_another_form_is_told():
    for loop, names in [
        (lambda: None, r"\(\)"),
        (lambda model: None, r"\(model\)"),
        (lambda a, b, c, d, e: None, r"\(a, b, c, d, e\)"),
        (lambda model, x, y, w, e: None, r"\(model, x, y, w, e\)"),
    ]:
        with pytest.raises(LoopError, match=f"takes {names}. Wrap it: loop=lambda model"):
            run.caller(loop)


def test_a_place_is_the_users(tmp_path, monkeypatch):
    """Relative to where one works; frames of Keras, TensorFlow and Python are left out."""
    own = os.path.relpath(__file__)
    assert site() == f"{own}:{test_a_place_is_the_users.__code__.co_firstlineno + 3}"
    line = test_a_place_is_the_users.__code__.co_firstlineno + 5
    assert tf.nest.map_structure(lambda _: site(), [1]) == [f"{own}:{line}"]
    assert keras.tree.map_structure(lambda _: site(), 1) == f"{own}:{line + 1}"
    assert functools.reduce(lambda *_: site(), [1, 2]) == f"{own}:{line + 2}"
    space = {"site": site}
    exec("found = site()", space)  # has no file
    assert space["found"] == f"{own}:{line + 4}"
    file = tmp_path / "mine.py"
    exec(compile("\n\nfound = site()", str(file), "exec"), space)
    assert space["found"] == f"{file}:3"
    monkeypatch.chdir(tmp_path)
    exec(compile("\n\nfound = site()", str(file), "exec"), space)
    assert space["found"] == "mine.py:3"
