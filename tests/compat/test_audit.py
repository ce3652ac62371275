"""The audit names what a model meets, and is silent about its neighbour that does not."""

import keras
import pytest
import tensorflow as tf
from keras import layers, optimizers

from tfbig import compat
from tfbig.compat import ask
from tfbig.compat.audit import audit, finding


def sequential(*parts, optimizer=None, loss="mse", **compiled):
    model = keras.Sequential(parts)
    model.compile(optimizer or optimizers.SGD(), loss, **compiled)
    return model


def functional(shape, call, optimizer=None, loss="mse"):
    inputs = keras.Input(shape)
    model = keras.Model(inputs, call(inputs))
    model.compile(optimizer or optimizers.SGD(), loss)
    return model


def words(optimizer, layer=None):
    return sequential(layer or layers.Embedding(3, 2), layers.Dense(1), optimizer=optimizer)


def frozen():
    layer = layers.Embedding(3, 2)
    layer.trainable = False
    return layer


def tied():
    return layers.ReversibleEmbedding(3, 2, tie_weights=True)


def remat(layer, mode="full", **compiled):
    names = {"layer_names": ["x"]} if mode == "list_of_layers" else {}
    with keras.RematScope(mode, **names):
        inner = layer()
    return Own(inner, **compiled)


class Own(keras.Model):
    def __init__(self, layer, **compiled):
        super().__init__()
        self.layer = layer
        self.compile(optimizers.SGD(), "mse", **compiled)

    def call(self, x, training=False):
        return self.layer(x)


def mirrored(**optimizer):
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        return sequential(layers.Dense(1), optimizer=optimizers.SGD(**optimizer))


def distiller(layer, loss):
    def network():
        inputs = keras.Input((1,))
        return keras.Model(inputs, layers.Dense(1)(layer()(inputs)))

    model = keras.distillation.Distiller(network(), network(), loss)
    model.compile("sgd", "mse")
    return model


def features():
    return keras.distillation.FeatureDistillation("mse", "h", "h")


def logits():
    return keras.distillation.LogitsDistillation()


def quantized(x):
    return keras.quantizers.fake_quant_with_min_max_vars(x, -1.0, 1.0, num_bits=2)


def attend(x):
    return layers.MultiHeadAttention(1, 2)(x, x)


# (the defect, a model that meets it, its neighbour that does not)
PAIRS = [
    ("V2", lambda: words(optimizers.Adam()), lambda: words(optimizers.SGD(momentum=0.9))),
    (
        "V2",
        lambda: words(optimizers.LossScaleOptimizer(optimizers.Nadam())),
        lambda: words(optimizers.Lion()),
    ),
    ("V2", lambda: words(optimizers.Adam()), lambda: words(optimizers.Adam(), frozen())),
    ("V2", lambda: words(optimizers.Ftrl()), lambda: words(optimizers.Adam(), tied())),
    ("V4b", lambda: words(optimizers.SGD(clipvalue=1.0)), lambda: words(optimizers.SGD())),
    (
        "V5",
        lambda: remat(lambda: layers.Dropout(0.5)),
        lambda: remat(lambda: layers.Dropout(0.0)),
    ),
    ("V5", lambda: remat(lambda: layers.Dropout(0.5, name="x"), "list_of_layers"), None),
    ("V5", None, lambda: remat(lambda: layers.Dropout(0.5, name="y"), "list_of_layers")),
    ("V5", None, lambda: Own(layers.Dropout(0.5))),
    ("V6", lambda: remat(layers.BatchNormalization), lambda: remat(layers.LayerNormalization)),
    (
        "V7",
        lambda: remat(lambda: layers.Dropout(0.5)),
        lambda: remat(lambda: layers.Dropout(0.5), run_eagerly=True),
    ),
    ("V7", lambda: remat(lambda: layers.Dense(1)), lambda: remat(layers.LayerNormalization)),
    ("V7", None, lambda: remat(lambda: layers.Dense(1), "activations")),
    (
        "V8",
        lambda: mirrored(gradient_accumulation_steps=2),
        lambda: sequential(
            layers.Dense(1), optimizer=optimizers.SGD(gradient_accumulation_steps=2)
        ),
    ),
    (
        "V9",
        lambda: mirrored(use_ema=True, ema_overwrite_frequency=2),
        lambda: mirrored(use_ema=True),
    ),
    (
        "V11",
        lambda: words(optimizers.SGD(use_ema=True, gradient_accumulation_steps=2)),
        lambda: words(optimizers.SGD(use_ema=True)),
    ),
    (
        "V13",
        lambda: sequential(layers.Dense(1), loss=["mse", "mae"]),
        lambda: sequential(layers.Dense(1), loss=["mse"]),
    ),
    (
        "V13",
        lambda: functional((1,), layers.Dense(1), loss=["mse", "mae"]),
        lambda: functional((1,), lambda x: [layers.Dense(1)(x), x], loss=["mse", "mae"]),
    ),
    (
        "V15",
        lambda: distiller(lambda: layers.BatchNormalization(name="h"), features()),
        lambda: distiller(lambda: layers.BatchNormalization(name="h"), logits()),
    ),
    ("V15", None, lambda: distiller(lambda: layers.Dense(1, name="h"), features())),
    (
        "V16",
        lambda: distiller(lambda: layers.Dense(1), logits()),
        lambda: sequential(layers.Dense(1)),
    ),
    (
        "V17",
        lambda: distiller(lambda: layers.Dense(1), logits()),
        lambda: sequential(layers.Dense(1)),
    ),
    (
        "V18",
        lambda: functional((1,), quantized),
        lambda: functional((1,), layers.Lambda(quantized)),
    ),
    ("V19", lambda: sequential(layers.Dense(1)), lambda: sequential(layers.Conv1D(1, 1))),
    (
        "V20",
        lambda: functional((2, 2), attend, optimizers.Muon()),
        lambda: functional((2, 2), attend, optimizers.AdamW()),
    ),
    (
        "V20",
        lambda: functional((2, 2), layers.Conv1D(1, 1), optimizers.Muon()),
        lambda: functional((2,), layers.Dense(1), optimizers.Muon()),
    ),
    ("V23", lambda: functional((2, 2), attend), lambda: sequential(layers.Dense(1))),
    (
        "V24",
        lambda: sequential(layers.Softmax(), loss="sparse_categorical_crossentropy"),
        lambda: sequential(
            layers.Dense(2), loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        ),
    ),
    (
        "V24",
        lambda: sequential(layers.Softmax(), loss=keras.losses.CategoricalCrossentropy()),
        lambda: sequential(layers.Dense(2), loss="mse"),
    ),
    (
        "V24",
        lambda: sequential(layers.Softmax(), loss=[keras.losses.binary_crossentropy]),
        lambda: sequential(layers.Dense(2), loss=keras.losses.MeanSquaredError()),
    ),
    (
        "V26",
        lambda: sequential(layers.Dense(1)),
        lambda: sequential(layers.Dense(1), steps_per_execution=2),
    ),
    ("V26", None, lambda: sequential(layers.Dense(1), run_eagerly=True)),
]


def meets(name, model):
    return compat.DEFECTS[name].meets(model)


def test_a_model_meets_it_and_its_neighbour_does_not():
    wrong = [
        (place, name)
        for place, (name, model, neighbour) in enumerate(PAIRS)
        if (model and not meets(name, model())) or (neighbour and meets(name, neighbour()))
    ]
    assert wrong == []


def test_what_is_used_from_outside_the_model_is_always_there():
    model = sequential(layers.Dense(1))
    always = {name for name in compat.DEFECTS if meets(name, model)}
    assert {"V14", "V21", "V25", "V26", "V27"} <= always
    assert all(compat.DEFECTS[name].WHEN for name in always)


class Loss(keras.Model):
    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return keras.ops.mean(y_pred)


def test_on_several_replicas(monkeypatch):
    """Two devices are another process's: here the number alone is told."""
    own = Loss()
    own.compile(optimizers.SGD(clipnorm=1.0))
    scaled = sequential(layers.Dense(1), optimizer=optimizers.LossScaleOptimizer(optimizers.SGD()))
    apart = {"V3": scaled, "V4": own, "V10": own, "V12": own}
    assert not any(meets(name, model) for name, model in apart.items())
    monkeypatch.setattr(ask, "replicas", lambda model: 2)
    assert all(meets(name, model) for name, model in apart.items())
    assert not meets("V3", own) and not meets("V4", scaled) and not meets("V12", scaled)


def test_under_several_workers():
    with tf.distribute.MultiWorkerMirroredStrategy().scope():
        assert meets("V1", sequential(layers.Dense(1)))
    assert not meets("V1", mirrored())


def test_a_distribution_that_is_set(monkeypatch):
    model = sequential(layers.Dense(1))
    assert not meets("V22", model)
    monkeypatch.setattr(keras.distribution, "distribution", lambda: object())
    assert meets("V22", model)


def test_optimizers_inside_others():
    inner = optimizers.SGD(clipnorm=1.0), optimizers.Adam()
    chosen = optimizers.OptimizerMap(inner[0], {"kernel": inner[1]})
    model = words(optimizers.MultiOptimizer(chosen))
    assert set(map(id, ask.optimizers(model))) == set(map(id, inner))
    assert meets("V2", model) and meets("V4b", model)


def test_audit_lists_the_certain_first_each_with_its_mend():
    findings = audit(
        words(optimizers.Adam(use_ema=True, gradient_accumulation_steps=2, clipnorm=1.0))
    )
    certain = [f.id for f in findings if not f.when]
    assert certain == [f.id for f in findings][: len(certain)] == ["V2", "V4b", "V11"]
    assert [f.fixed for f in findings[:3]] == [True, True, False]
    assert all(f.summary and f.mend for f in findings)
    assert all(f.when.startswith("if ") for f in findings[3:])


def test_audit_leaves_out_what_this_installation_has_not(monkeypatch):
    monkeypatch.setattr(compat, "present", lambda name: name == "V27")
    assert audit(words(optimizers.Adam())) == (finding("V27"),)


def test_audit_wants_a_compiled_model():
    with pytest.raises(ValueError, match="compile the model first"):
        audit(keras.Sequential([layers.Dense(1)]))
