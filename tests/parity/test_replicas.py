"""A loop under MirroredStrategy, on two logical devices: in a process of its own, since TensorFlow
takes the number of devices at its start only."""

import json
import subprocess
import sys

PROGRAM = """
import json
import keras, numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from tfbig import parity

strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
x = np.random.default_rng(0).normal(size=(14, 5)).astype("float32")
y = x[:, :1] * 2
with strategy.scope():
    layers = [keras.Input((5,)), keras.layers.Dense(4, "relu"), keras.layers.Dense(1)]
    model = keras.Sequential(layers)
    model.compile(keras.optimizers.SGD(0.1), "mse")

def half(of):
    size = len(of) // 2
    return strategy.experimental_distribute_values_from_function(
        lambda c: of[c.replica_id_in_sync_group * size:][:size])

def loop(factor):
    def step(x, y):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(x, training=True) - y) ** 2) * factor
        gradients = tape.gradient(loss, model.trainable_variables)
        model.optimizer.apply_gradients(zip(gradients, model.trainable_variables))
    return lambda model, x, y, sample_weight: strategy.run(step, args=(half(x), half(y)))

found = {}
for name, factor in (("right", 0.5), ("missing", 1.0), ("twice", 0.25)):
    before = model.get_weights()
    report = parity.diagnose(model, x, y, loop=loop(factor))
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights()))
    found[name] = [(c.id, c.evidence) for c in report.causes] + list(report.unexplained)

def by_compute_loss(model, optimizer, function):
    def step(x, y):
        with tf.GradientTape() as tape:
            loss = model.compute_loss(x, y, model(x, training=True))
        variables = model.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables))
    both = lambda a, b: strategy.run(step, args=(a, b))
    both = tf.function(both) if function else both
    return lambda model, x, y, sample_weight: both(half(x), half(y))

layers = keras.layers
found["correct"] = {}
for name, optimizer, extra, function, own in (
    ("regularised", "sgd", None, False, False),
    ("function", "adam", None, True, False),
    ("own optimizer", "adam", None, False, True),
    ("dropout", "sgd", layers.Dropout(0.3), False, False),
    ("norm", "sgd", layers.BatchNormalization(), False, False),
):
    with strategy.scope():
        inner = [layers.Dense(4, "relu", kernel_regularizer="l2"), *([extra] if extra else [])]
        model = keras.Sequential([keras.Input((5,)), *inner, layers.Dense(1)])
        model.compile(optimizer, "mse")
        used = keras.optimizers.get(optimizer) if own else model.optimizer
    report = parity.diagnose(model, x, y, loop=by_compute_loss(model, used, function))
    found["correct"][name] = [c.id for c in report.causes] + list(report.unexplained)
print(json.dumps(found))
"""


def test_the_number_of_replicas():
    """By hand: gradients are summed over 2 replicas, so each loss is to be halved."""
    run = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-3000:]
    found = json.loads(run.stdout.splitlines()[-1])
    assert found["right"] == []
    assert len(found["correct"]) == 5 and not any(found["correct"].values()), found["correct"]
    ((missing, evidence),) = found["missing"]
    assert missing == "D12" and evidence.startswith("every gradient is 2 times fit's")
    ((twice, evidence),) = found["twice"]
    assert twice == "D12" and evidence.startswith("every gradient is 0.5 times fit's")
