"""What `import tfbig` loads (nothing), and what Keras knows after it (our classes)."""

import importlib.util
import subprocess
import sys
import textwrap

import pytest


def run(code, **environment):
    import os

    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **environment},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


def test_import_is_light_and_silent():
    out = run("""
        import sys, tfbig
        heavy = {"tensorflow", "keras", "numpy", "sklearn", "matplotlib", "absl"} & set(sys.modules)
        assert not heavy, heavy
        assert tfbig.__version__ and "models" in dir(tfbig)
    """)
    assert out == ""


@pytest.mark.parametrize(
    "first",
    [
        "import tfbig, keras",
        "import keras, tfbig",
        "import tensorflow as tf, tfbig; keras = tf.keras",
        "import tfbig, tensorflow as tf; keras = tf.keras",
    ],
)
def test_load_model_finds_our_classes(first, tmp_path):
    import keras

    from tfbig.models import NeuralNetwork
    from tfbig.training import Learner, Supervised

    network = NeuralNetwork()
    learner = Learner(network, Supervised("mse"))
    learner(__import__("numpy").zeros((1, 3), "float32"))
    learner.save(tmp_path / "learner.keras")
    network.save(tmp_path / "network.keras")
    assert keras.saving.get_registered_object("tfbig>NeuralNetwork") is NeuralNetwork
    run(f"""
        {first}
        for name in ("learner", "network"):
            print(keras.models.load_model(f"{tmp_path}/{{name}}.keras").count_params())
    """)


WITHOUT_TENSORFLOW = """
    from importlib.machinery import PathFinder

    find = PathFinder.find_spec
    PathFinder.find_spec = lambda name, path=None, target=None: (
        None if name.split(".")[0] == "tensorflow" else find(name, path, target)
    )
    import numpy as np
    import tfbig.models
    import keras
    network = tfbig.models.NeuralNetwork()
    x = np.ones((8, 3), "float32")
    assert network(x).shape == (8, 1)
    network.save("{path}")
    assert type(keras.models.load_model("{path}")) is tfbig.models.NeuralNetwork
"""


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_models_and_probe_on_other_backends(backend, tmp_path):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed: its backend is not tried")
    run(WITHOUT_TENSORFLOW.format(path=tmp_path / "m.keras"), KERAS_BACKEND=backend)
    # The gradient of mean((w x)^2) by w, for w = 1 and x = 1 in 2 columns: 2 (1 + 1) = 4 each.
    run(
        """
        import importlib.util, numpy as np, keras, sys
        spec = importlib.util.find_spec("tfbig")
        path = spec.submodule_search_locations[0] + "/parity/probe.py"
        spec = importlib.util.spec_from_file_location("probe", path)
        probe = importlib.util.module_from_spec(spec); spec.loader.exec_module(probe)
        model = keras.Sequential([keras.layers.Dense(1, kernel_initializer="ones")])
        model.compile(probe.Probe(), loss="mse")
        model.fit(np.ones((4, 2)), np.zeros((4, 1)), verbose=0)
        assert np.allclose(model.optimizer.gradients()[0], 4.0), model.optimizer.gradients()
        assert np.allclose(model.get_weights()[0], 1.0)
    """,
        KERAS_BACKEND=backend,
    )
