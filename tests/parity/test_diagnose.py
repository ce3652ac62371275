"""Right loops give no cause; each fault gives its own, with the number by hand and the line."""

import inspect
import json
import math
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.conformance.networks import CASES
from tests.parity import loops
from tests.parity.faults import FAULTS, SCALE, forgetting_constraints, scaling, smoothed
from tests.parity.loops import COLUMN, FLAT, ROWS, X, by_hand, dense, mse, own, with_parts
from tfbig.parity import CATALOGUE, diagnose

THIRD = (4 / ROWS, 4 / ROWS, 5 / ROWS)
everywhere = {"kernel_regularizer": "l1l2", "kernel_constraint": "max_norm"}


def place(cause):
    """The file of a cause, its first line and its last one."""
    file, lines = cause.where.rsplit(":", 1)
    begin, _, end = lines.partition("-")
    return Path(file).resolve(), int(begin), int(end or begin)


def with_compute_loss(model, x, y, sample_weight):
    with tf.GradientTape() as tape:
        predictions = model(x, training=True)
        loss = model.compute_loss(x, y, predictions, sample_weight)
        scaled = model.optimizer.scale_loss(loss)
    gradients = tape.gradient(scaled, model.trainable_variables)
    model.optimizer.apply_gradients(zip(gradients, model.trainable_variables))
    return {"loss": loss}


def with_functions(model, x, y):
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(keras.losses.mean_squared_error(y, model(x, training=True)))
        loss += sum(model.losses)
    gradients = tape.gradient(loss, model.trainable_variables)
    model.optimizer.apply(gradients, model.trainable_variables)


class Own(keras.Sequential):
    """With a right `train_step` of its own; with `summed` as its loss a wrong one."""

    def loss_of(self, *given):
        return self.compute_loss(*given)

    def train_step(self, data):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        with tf.GradientTape() as tape:
            loss = self.loss_of(x, y, self(x, training=True), sample_weight)
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply(gradients, self.trainable_variables)
        return {}


class Wrong(Own):
    def loss_of(self, x, y, predictions, sample_weight):
        return loops.summed(y, predictions, sample_weight)


def with_train_step(kind):
    return loops.compiled(kind([keras.layers.Dense(4, "tanh"), keras.layers.Dense(1)]))


def normal():
    return dense(between=[keras.layers.BatchNormalization(), keras.layers.Dropout(0.3, seed=1)])


def adam(**options):
    return lambda: dense(optimizer=keras.optimizers.Adam(loops.RATE, **options))


weighted, plain = (X, COLUMN, loops.WEIGHTS), (X, COLUMN)
RIGHT = {
    "compute_loss": (normal, weighted, lambda m: with_compute_loss),
    # The first scaled gradient overflows: fit and the loop both leave that step out.
    "float16": (lambda: scaling("mixed_float16"), plain, lambda m: with_compute_loss),
    "functional": (lambda: dense(**everywhere), plain, lambda m: with_functions),
    "targets (n,)": (dense, (X, FLAT), lambda m: by_hand(mse)),
    "two heads": (loops.two_heads, (X, loops.TWO), lambda m: with_compute_loss),
    "tf.function": (normal, weighted, lambda m: tf.function(with_compute_loss)),
    "XLA": (dense, weighted, lambda m: tf.function(with_compute_loss, jit_compile=True)),
    "own optimizer": (adam(clipnorm=0.1, weight_decay=0.1), plain, own()),
    "train_step": (lambda: with_train_step(Own), weighted, lambda m: None),
    "accumulation": (adam(), plain, lambda m: loops.micro((4, 4, 5), THIRD)),
}


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_loop_gives_no_cause(name):
    network, data, loop = RIGHT[name]
    model = network()
    report = diagnose(model, *data, loop=loop(model))
    assert not report.causes and not report.unexplained and report.matches, str(report)
    # In float16 fit leaves the first steps out, and so does the loop: no gradient to compare.
    assert name == "float16" or report.gradients.matches
    assert not report.ruled_out and report.parted is None


# Networks with an embedding whose gradient is sparse, and ids that come twice. (A tied head makes
# the gradient of its table dense.)
REPEATED_ROWS = {"lstm_masked", "masked_lm", "text_encoder", "seq2seq", "dual_encoder"}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_tfbigs_own_loop_gives_no_cause(case):
    """But for V2: it sums the rows of a word that comes twice, and stock `fit` does not."""
    report = diagnose(case.build(), *case.data())
    assert [c.id for c in report.causes] == ["D59"] * (case.name in REPEATED_ROWS), str(report)
    assert not report.unexplained


@pytest.mark.parametrize("fault", FAULTS, ids=lambda f: f"{f.id} {f.name}".strip())
def test_a_fault_is_named_with_its_number(fault):
    model = fault.network()
    loop = fault.loop(model)
    report = diagnose(model, *fault.data, loop=loop, class_weight=fault.class_weight)
    assert [cause.id for cause in report.causes] == [fault.id], str(report)
    assert not report.unexplained, str(report)
    (cause,) = report.causes
    assert fault.evidence in cause.evidence + f" in step {cause.step}"
    assert (cause.title, cause.mend) == (CATALOGUE[fault.id].title, CATALOGUE[fault.id].mend)
    assert place(cause)[0].parent == Path(__file__).parent
    if fault.ratio is not None:
        for row in report.gradients.compared:
            assert row.ratio == pytest.approx(fault.ratio, rel=1e-4)
            assert row.cosine == pytest.approx(1, abs=1e-5)


def test_a_broadcast_leaves_the_last_bias_as_it_is():
    """mean_ij 2 (p_i - y_j) = mean_i 2 (p_i - y_i): what the other weights get differs."""
    report = diagnose(dense(), X, FLAT, loop=by_hand(loops.broadcast))
    *others, bias = report.gradients.rows
    assert bias.path.endswith("bias") and bias.ratio == pytest.approx(1, abs=1e-6)
    assert all(abs(row.ratio - 1) > 0.01 for row in others)


def test_hidden_logits_cap_the_loss():
    """Logits are (60, 0) or (0, 0): a loss of 60, or -ln 1e-7 = 16.118 for the wrong label."""
    loss = keras.losses.SparseCategoricalCrossentropy()
    model = loops.compiled(
        keras.Sequential([keras.Input((5,)), keras.layers.Dense(2, "softmax")]), loss
    )
    model.set_weights([np.array([[60.0, 0.0], *[[0.0, 0.0]] * 4]), np.zeros(2)])
    x = X[:12] * [0, 1, 1, 1, 1] + np.array([[i % 2, 0, 0, 0, 0] for i in range(12)])
    labels = np.arange(12) // 2 % 2  # of the six that are sure, three are wrong
    seen = []

    def capped(y, p, w):
        seen.append(float(loss(y, tf.identity(p))))
        return loss(y, tf.identity(p))

    report = diagnose(model, x, labels, loop=by_hand(capped))
    assert seen[0] == pytest.approx((6 * math.log(2) - 3 * math.log(1e-7)) / 12, rel=1e-5)
    assert [c.id for c in report.causes] == ["D23"], str(report)
    assert "6 of 12 examples are beyond" in report.causes[0].evidence


def test_the_models_own_train_step():
    report = diagnose(with_train_step(Wrong), *plain)
    assert [c.id for c in report.causes] == ["D11"] and f"{ROWS} times" in str(report)
    file, begin, end = place(report.causes[0])
    lines, first = inspect.getsourcelines(Own.train_step)
    assert file == Path(__file__) and first < begin <= end < first + len(lines)


def regular_norm():
    between = [keras.layers.BatchNormalization(momentum=loops.MOMENTUM)]
    return dense(between=between, kernel_regularizer=keras.regularizers.L2(0.1))


def regular_sparse():
    return dense(between=[loops.Sparse()], kernel_regularizer=keras.regularizers.L2(0.1))


def constrained():
    return dense(kernel_constraint=keras.constraints.MaxNorm(0.3))


def decaying():
    return dense(optimizer=keras.optimizers.SGD(loops.RATE, weight_decay=0.2))


def scaled_classes():
    model = loops.classes()
    inner = keras.optimizers.LossScaleOptimizer(
        keras.optimizers.SGD(loops.RATE), initial_scale=SCALE
    )
    return loops.compiled(model, model.loss, inner)


def probabilities(y, p, w):
    return tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(y, p))


def in_training_off(model, x):
    return model(x)


TOGETHER = {  # in different stages
    "D07 D11": (loops.dropping, plain, with_parts(loss=loops.summed, call=in_training_off)),
    "D08 D03": (regular_norm, plain,
                with_parts(loss=mse, add=lambda m: 0.0, call=in_training_off)),
    "D01 D34": (constrained, (X, FLAT),
                with_parts(loss=loops.broadcast, update=forgetting_constraints)),
    "D47 D15": (dense, weighted, with_parts(loss=mse, given=lambda x, y, w: (x * 2.0, y, w))),
    "D11 D35": (dense, plain, own({"loss": loops.summed}, learning_rate=0.01)),
    "D15 D38": (dense, weighted, with_parts(loss=mse, variables=lambda m: m.weights[2:])),
    "D24 D25": (scaled_classes, (X, loops.NUMBERS),
                with_parts(loss=smoothed, scale=lambda m, v: v)),
    # in one stage
    "D15 D21": (loops.classes, (X, loops.NUMBERS, loops.WEIGHTS), with_parts(loss=probabilities)),
    "D03 D05": (regular_sparse, plain, with_parts(loss=mse, add=lambda m: 0.0)),
    "D33 D35": (decaying, plain, own(weight_decay=None, learning_rate=0.01)),
    "D15 D01": (dense, (X, FLAT, loops.WEIGHTS), with_parts(loss=loops.broadcast)),
    "D11 D13": (dense, (X[:12], COLUMN[:12]),
                lambda m: loops.micro((4, 4, 4), (1.0,) * 3, loss=loops.summed)),
}  # fmt: skip


@pytest.mark.parametrize("ids", TOGETHER)
def test_faults_at_once_are_told_apart(ids):
    network, data, loop = TOGETHER[ids]
    model = network()
    report = diagnose(model, *data, loop=loop(model), steps=2)
    assert sorted(cause.id for cause in report.causes) == sorted(ids.split()), str(report)
    assert not report.unexplained, str(report)


def wrong_in_many_places(model, x, y, sample_weight):
    with tf.GradientTape() as tape:
        predictions = model(x)  # the forward pass: D07
        loss = tf.reduce_sum((y - predictions) ** 2)  # the loss: D11
    gradients = tape.gradient(loss, model.trainable_variables)
    gradients = [tf.clip_by_value(g, -0.1, 0.1) for g in gradients]
    model.optimizer.apply_gradients(zip(gradients, model.trainable_variables))  # applied: D31


@pytest.mark.parametrize("wrap", [lambda f: f, tf.function], ids=["eager", "graph"])
def test_each_cause_has_its_line(wrap):
    report = diagnose(loops.dropping(), *plain, loop=wrap(wrong_in_many_places))
    lines, first = inspect.getsourcelines(wrong_in_many_places)
    at = {word: first + i for i, line in enumerate(lines) for word in line.split("# ")[1:]}
    at = {word.strip().split(": ")[1]: line for word, line in at.items()}
    found = {cause.id: place(cause) for cause in report.causes}
    assert found.keys() == at.keys() == {"D07", "D11", "D31"}
    for cause, (file, begin, end) in found.items():
        assert file == Path(__file__) and begin <= at[cause] <= end < first + len(lines), cause


def made_up(y, p, w):
    return loops.mse(y, p, w) + 0.3 * tf.reduce_mean(tf.sin(7 * p))


def layer_by_layer(model, x):
    """As `model(x)`, but for the second layer's output."""
    h = model.layers[0](x)
    return model.layers[2](tf.sin(3 * model.layers[1](h)))


def later(model, whole):
    """The made-up part begins in step 2."""
    late = tf.cast(model.optimizer.iterations > 0, tf.float32)
    return whole * (1 + late * 0.123)


MADE_UP = {  # the parts, the stage, where they part: step, layer, variable; what was tried there
    "loss": ({"loss": made_up}, "loss (", "step 1, no layer's output, the gradient of", "D01 D15"),
    "applied": (
        {"change": lambda g: [v + tf.cos(v) for v in g]},
        "what is applied (", "step 1, no layer's output, no gradient", "D29 D30 D31",
    ),
    "layers": (
        {"call": layer_by_layer},
        "never called the model as a whole", "step 1, the output of {last} (it differs by", "",
    ),
    "later": ({"scale": later}, "1.123 times fit's", "step 2, no layer's output, the", "D11 D16"),
}  # fmt: skip


@pytest.mark.parametrize("name", MADE_UP)
def test_what_is_made_up_gets_no_name(name):
    parts, stage, parted, tried = MADE_UP[name]
    model = dense()
    report = diagnose(model, *plain, loop=by_hand(**{"loss": mse, **parts}))
    assert not report.causes and not report.matches, str(report)
    assert len(report.unexplained) == 1 and stage in report.unexplained[0]
    last = model.layers[-1]
    assert report.parted.startswith(parted.format(last=last.path))
    assert report.parted.endswith("no gradient" if name == "applied" else last.bias.path)
    in_a_step = {row.id for row in CATALOGUE.values() if row.sees != "epoch"}
    assert set(tried.split()) <= set(report.ruled_out) <= in_a_step
    assert bool(report.ruled_out) is bool(tried)
    assert "for no cause in the catalogue" in report.verdict
    said = str(report)
    assert stage in said and report.parted in said and ", ".join(report.ruled_out) in said
    json.dumps(report.to_json())
