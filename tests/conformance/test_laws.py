"""The laws, each stated once, over every network and technique of `networks.py`."""

import inspect
import json

import keras
import numpy as np
import pytest

from tests.conformance.networks import CASES, NOT_A_CASE, ROWS
from tfbig import compat, models, parity, training
from tfbig.training import Loop

# What is sampled in every run; all cases in all modes are the full tier.
SAMPLE = {"neural_network", "cnn", "noise_prediction"}
# What retraces a network several times: of the big ones, in the full tier.
COSTLY = {"same training", "one forward", "traces once"}
MODES = {
    "graph": {},
    "eager": {"run_eagerly": True},
    "xla": {"jit_compile": True},
}


def applying(law: str, modes: tuple[str, ...] = ("graph",)):
    """All cases to which a law applies, in all modes; the slow ones marked as such."""
    chosen = []
    for case in CASES:
        if law in case.exempt:
            continue
        for mode in modes:
            slow = mode != "graph" and case.name not in SAMPLE
            slow = slow or (case.big and law in COSTLY)
            marks = [pytest.mark.full] if slow else []
            chosen.append(pytest.param(case, mode, id=f"{case.name}-{mode}", marks=marks))
    return pytest.mark.parametrize(("case", "mode"), chosen)


def trained(case, mode, driver, epochs=3, **options):
    """A case trained by a driver from the one seed; `fit` with the fix that the loop needs not."""
    keras.utils.set_random_seed(11)
    model = case.build(**MODES[mode], **options)
    x, y = case.data()
    with compat.fixed("V2"):
        fit = model.fit if driver == "fit" else Loop(model).fit
        history = fit(x, y, batch_size=8, epochs=epochs, verbose=0)
    return model, history.history


@applying("same gradients", ("graph", "eager", "xla"))
def test_law_1_same_gradients(case, mode):
    model, (x, y) = case.build(**MODES[mode]), case.data()
    report = parity.assert_same(model, x, y)
    # 1e-6: float32 in one mode, one order of sums; 1e-5 under XLA, which fuses and reorders.
    assert report.tolerance == (1e-5 if mode == "xla" else 1e-6)
    assert len(report.compared) >= len(report.rows) // 2, "nearly all gradients are zero"
    stepping = type(model).train_step is not keras.Model.train_step
    assert report.independent != stepping


@applying("same training", ("graph", "eager", "xla"))
def test_law_2_same_training(case, mode):
    (a, history_a), (b, history_b) = (trained(case, mode, d) for d in ("fit", "loop"))
    assert list(history_a) == list(history_b)
    for name in history_a:
        # 1e-6: averages of the same numbers.
        np.testing.assert_allclose(history_b[name], history_a[name], rtol=1e-6, err_msg=name)
    # All variables: weights, BatchNorm's statistics, the dropout seeds; then slots and counts.
    for u, v in zip([*a.variables, *a.optimizer.variables], [*b.variables, *b.optimizer.variables]):
        # 1e-5 of the tensor's largest entry: what a float32 sum in another order may differ by.
        scale = float(np.abs(u.numpy()).max()) if u.numpy().size else 0.0
        np.testing.assert_allclose(v.numpy(), u.numpy(), atol=1e-5 * scale, err_msg=u.path)


@pytest.mark.parametrize("driver", ["fit", "loop"])
@applying("one forward")
def test_law_7_one_forward_pass_for_each_step(case, mode, driver):
    model, (x, y) = case.build(run_eagerly=True), case.data()
    keras.utils.set_random_seed(0)
    # Built and sized before it is counted.
    (model.fit if driver == "fit" else Loop(model).fit)(x, y, batch_size=8, verbose=0)
    own = model.layers  # and not what is inside a layer: a recurrent cell runs at each time step
    with training.tap(model, lambda layer: layer in own) as seen:
        (model.fit if driver == "fit" else Loop(model).fit)(x, y, batch_size=8, verbose=0)
    calls = {len(outputs) for outputs in seen.values()}
    # ROWS examples in batches of 8 are 3 steps; a layer that is shared is called twice in each.
    assert calls <= ({3, 6} if case.name in ("shared_layer", "seq2seq") else {3}), calls


def test_law_7_statistics_and_seeds_move_once_for_each_step():
    """By hand: BatchNorm with momentum m moves by 1 - m^steps of the way; a seed counts steps."""
    for driver in ("fit", "loop"):
        norm = keras.layers.BatchNormalization(momentum=0.5, trainable=True)
        dropout = keras.layers.Dropout(0.5, seed=3)
        model = keras.Sequential([norm, dropout, keras.layers.Dense(1)])
        model.compile("sgd", "mse")
        fit = model.fit if driver == "fit" else Loop(model).fit
        x = np.tile([[2.0], [4.0]], (6, 3)).astype("float32")  # every batch has mean 3
        fit(x, np.zeros((12, 1)), batch_size=4, shuffle=False, verbose=0)
        np.testing.assert_allclose(norm.moving_mean, 3 * (1 - 0.5**3) * np.ones(3), rtol=1e-6)
        assert dropout.seed_generator.state.numpy().tolist() == [3, 3]


@applying("traces once")
def test_law_7_traces_once(case, mode):
    model, (x, y) = case.build(), case.data()
    traces = []
    original = model.compute_loss

    def compute_loss(*args, **kwargs):
        traces.append(1)
        return original(*args, **kwargs)

    model.compute_loss = compute_loss
    loop = Loop(model)
    loop.fit(x, y, batch_size=8, verbose=0)
    first = len(traces)
    loop.fit(x, y, batch_size=8, epochs=2, verbose=0)
    assert first >= 1 and len(traces) == first, "another call of fit traced the step again"


@applying("round trip")
def test_law_5_round_trip(case, mode, tmp_path):
    # Eager, which needs no trace: what is saved are numbers, however they were come by.
    model, _ = trained(case, "eager", "loop", epochs=1)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")  # in safe mode
    # As JSON: a file has no tuples.
    assert json.dumps(again.get_config()) == json.dumps(model.get_config())
    # Weights and statistics. The states of seeds are not in a .keras file: Keras leaves them out.
    for u, v in zip(model.weights, again.weights, strict=True):
        np.testing.assert_array_equal(u.numpy(), v.numpy())
    x, _ = case.data()
    np.testing.assert_array_equal(
        again.predict(x, verbose=0), model.predict(x, verbose=0), strict=True
    )


@applying("lifts out")
def test_law_6_lifts_out(case, mode):
    """Works inside a functional model, symbolically, and as a layer of somebody's subclass."""
    model, (x, _) = case.build(), case.data()
    named = x if isinstance(x, dict) else {"x": x}
    inputs = {n: keras.Input(a.shape[1:], dtype=str(a.dtype), name=n) for n, a in named.items()}
    inputs = inputs if isinstance(x, dict) else inputs["x"]
    outer = keras.Model(inputs, model(inputs))

    class Somebodys(keras.Model):
        def __init__(self):
            super().__init__()
            self.inner = model

        def call(self, x):
            return self.inner(x)

    seeds = [v for v in model.variables if "seed" in v.path]
    state = [v.numpy() for v in seeds]
    outputs = []
    for network in (model, outer, Somebodys()):
        for v, value in zip(seeds, state):
            v.assign(value)
        outputs.append(network(keras.tree.map_structure(keras.ops.convert_to_tensor, x)))
    for other in outputs[1:]:
        keras.tree.map_structure(
            # Exactly: the same operations on the same numbers.
            lambda a, b: np.testing.assert_array_equal(np.array(a), np.array(b)),
            outputs[0],
            other,
        )


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize(
    "case",
    [
        pytest.param(c, id=c.name, marks=[] if c.name in SAMPLE else [pytest.mark.full])
        for c in CASES
        if "mixed precision" not in c.exempt
    ],
)
def test_laws_1_and_2_in_mixed_precision(case, policy):
    keras.config.set_dtype_policy(policy)
    model, (x, y) = case.build(), case.data()
    assert parity.assert_same(model, x, y).compared
    (a, history_a), (b, history_b) = (trained(case, "graph", d) for d in ("fit", "loop"))
    for name in history_a:
        # Half precision keeps 8 (bfloat16) or 11 bits: one rounding of another order is 4e-3.
        np.testing.assert_allclose(history_b[name], history_a[name], rtol=4e-3, err_msg=name)
    for u, v in zip(a.get_weights(), b.get_weights()):
        np.testing.assert_allclose(v, u, atol=4e-3 * max(float(np.abs(u).max()), 1e-3))


@pytest.mark.parametrize("driver", ["fit", "loop"])
@pytest.mark.parametrize(
    "case", [pytest.param(c, id=c.name) for c in CASES if "mixed precision" in c.exempt]
)
def test_the_exemption_from_mixed_precision_is_keras_own(case, driver):
    """Stock `fit` raises on these, so there is nothing that the loop could be equal to."""
    keras.config.set_dtype_policy("mixed_bfloat16")
    model, (x, y) = case.build(), case.data()
    with pytest.raises(TypeError, match="bfloat16"):
        (model.fit if driver == "fit" else Loop(model).fit)(x, y, batch_size=8, verbose=0)


@pytest.mark.full
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_law_2_over_a_hundred_steps(case, mode):
    (a, history_a), (b, history_b) = (trained(case, mode, d, epochs=34) for d in ("fit", "loop"))
    assert int(a.optimizer.iterations) == 34 * 3
    for name in history_a:
        np.testing.assert_allclose(history_b[name], history_a[name], rtol=1e-6, err_msg=name)
    for u, v in zip(a.trainable_variables, b.trainable_variables):
        scale = np.abs(u.numpy()).max()
        np.testing.assert_allclose(v.numpy(), u.numpy(), atol=1e-5 * scale, err_msg=u.path)


def test_a_hundred_steps_of_the_documents_network():
    case = next(c for c in CASES if c.name == "neural_network")
    (a, history_a), (b, history_b) = (trained(case, "graph", d, 34) for d in ("fit", "loop"))
    for name in history_a:
        np.testing.assert_allclose(history_b[name], history_a[name], rtol=1e-6)
    for u, v in zip(a.get_weights(), b.get_weights()):
        np.testing.assert_allclose(v, u, rtol=1e-5)


def test_every_public_class_is_listed(record_property):
    public = {
        cls
        for room in (models, training)
        for name in room.__all__
        if inspect.isclass(cls := getattr(room, name))
    }
    covered = {cls for case in CASES for cls in case.covers}
    missing = {cls.__name__ for cls in public - covered} - set(NOT_A_CASE)
    assert not missing, f"in no case of tests/conformance/networks.py: {missing}"
    exemptions = [
        f"  {case.name:16s} {law:14s} {reason}"
        for case in CASES
        for law, reason in case.exempt.items()
    ]
    title = "Laws do not apply where it says so; elsewhere they do:"
    record_property("say", "\n".join([title, *exemptions]))
    assert ROWS % 8, "the last batch is to be a partial one"
