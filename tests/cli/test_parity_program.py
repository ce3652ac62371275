"""`tfbig parity --program`: a user's program is run, its loop diagnosed, the status told."""

import json

import pytest

from tfbig.cli.main import main

BUILD = """
import keras, numpy as np, tensorflow as tf

def build():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    return model

def batch():
    x = np.random.default_rng(0).normal(size=(11, 4))
    return x, x[:, :1] + 1
"""
STEP = """
def train_step(model, x, y, sample_weight):
    with tf.GradientTape() as tape:
        loss = REDUCE((model(x, training=True) - y) ** 2)
    gradients = tape.gradient(loss, model.trainable_variables)
    model.optimizer.apply_gradients(zip(gradients, model.trainable_variables))

raise_in_main = 0
if __name__ == "__main__":
    raise SystemExit("this is not to run")
"""
TRAIN = """
def train(model, x, y, epochs):
    for epoch in range(epochs):
        for begin in range(0, len(x), 5):
            rows = slice(begin, begin + 5)
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean((model(x[rows], training=True) - y[rows]) ** 2)
            gradients = tape.gradient(loss, model.trainable_variables)
            model.optimizer.apply_gradients(zip(gradients, model.trainable_variables))
"""
OWN = """
class Own(keras.Sequential):
    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum((self(x, training=True) - y) ** 2)
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables))
        return {}

def build():
    model = Own([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    return model
"""


def run(tmp_path, source, *flags):
    path = tmp_path / "my_training.py"
    path.write_text(source)
    return main(["tfbig", "parity", f"--program={path}", *flags])


def test_a_right_step(tmp_path, capsys):
    assert run(tmp_path, BUILD + STEP.replace("REDUCE", "tf.reduce_mean")) == 0
    assert "The loop does what model.fit does." in capsys.readouterr().out


def test_a_faulty_step_has_cause_place_and_status(tmp_path, capsys):
    source = BUILD + STEP.replace("REDUCE", "tf.reduce_sum")
    assert run(tmp_path, source) == 1
    line = source.splitlines().index(
        "        loss = tf.reduce_sum((model(x, training=True) - y) ** 2)"
    )
    out = capsys.readouterr().out
    assert f"my_training.py:{line + 1}" in out and "D11: the loss is a sum" in out
    assert run(tmp_path, source, "--json", "--steps=1") == 1
    assert json.loads(capsys.readouterr().out)["causes"][0]["id"] == "D11"


def test_a_whole_training(tmp_path, capsys):
    assert run(tmp_path, BUILD + TRAIN, "--batch_size=5", "--noshuffle") == 0
    capsys.readouterr()
    assert run(tmp_path, BUILD + TRAIN, "--batch_size=5", "--json") == 1
    assert [c["id"] for c in json.loads(capsys.readouterr().out)["causes"]] == ["D44"]


def test_a_train_step_of_the_models_own(tmp_path, capsys):
    assert run(tmp_path, BUILD + OWN, "--json") == 1
    assert json.loads(capsys.readouterr().out)["causes"][0]["id"] == "D11"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (BUILD, "defines no train_step"),
        (BUILD + STEP.replace("REDUCE", "tf.reduce_mean") + TRAIN, "train_step and train: one"),
        (BUILD.split("def batch")[0] + TRAIN, "defines no batch()"),
        (BUILD + "def batch():\n    return 3\n" + TRAIN, "returns (x, y)"),
        (BUILD + "def batch():\n    raise OSError('gone')\n" + TRAIN, "fails: OSError('gone')"),
        (BUILD + "def train_step(model, x, y, w):\n    raise KeyError('a')\n", "KeyError"),
    ],
)
def test_wrong_programs_get_a_word_and_status_2(source, message, tmp_path, capsys):
    assert run(tmp_path, source) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error
