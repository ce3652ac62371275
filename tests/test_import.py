"""What `import tfbig` loads (nothing), and what Keras knows after it (our classes)."""

import importlib.util
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest

import tfbig
from tfbig import _registration
from tfbig.models import NeuralNetwork
from tfbig.training import Learner, Supervised


def run(code, **environment):
    """What a new Python prints that runs the code."""
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert "RuntimeWarning" not in result.stderr, result.stderr[-3000:]
    return result.stdout


def test_import_is_light_and_silent():
    out = run("""
        import sys, tfbig
        heavy = {"tensorflow", "keras", "numpy", "sklearn", "matplotlib", "absl"} & set(sys.modules)
        assert not heavy, heavy
        rooms = {name for name in sys.modules if name.startswith("tfbig.")}
        assert rooms == {"tfbig._registration"}, rooms
    """)
    assert out == ""


def test_rooms_are_loaded_when_used():
    assert set(tfbig.__all__) == set(dir(tfbig))
    for name in set(tfbig.__all__) - {"__version__"}:
        assert getattr(tfbig, name) is importlib.import_module(f"tfbig.{name}")
    assert tfbig.__version__ == "0.1.0"
    with pytest.raises(AttributeError, match="no attribute 'rooms'"):
        tfbig.rooms  # noqa: B018


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with a network and a Learner, both of 3 inputs: 3 x 10 + 10, 110, 11."""
    folder = tmp_path_factory.mktemp("saved")
    network = NeuralNetwork()
    learner = Learner(network, Supervised("mse"))
    learner(np.zeros((1, 3), "float32"))
    network.save(folder / "network.keras")
    learner.save(folder / "learner.keras")
    return folder


@pytest.mark.parametrize(
    "first",
    [
        "import tfbig, keras",
        "import keras, tfbig",
        "import tensorflow as tf, tfbig; keras = tf.keras",
        "import tfbig, tensorflow as tf; keras = tf.keras",
    ],
)
def test_load_model_finds_our_classes(first, saved):
    out = run(f"""
        {first}
        for name in ("learner", "network"):
            print(keras.models.load_model(f"{saved}/{{name}}.keras").count_params())
    """)
    assert out.split() == ["161", "161"]


# A Keras of three lines, that shows in milliseconds what is imported when.
KERAS = """
import {other}
class backend:
    backend = staticmethod(lambda: "tensorflow")
"""
HOOK = """
    import sys, tfbig
    sys.path.insert(0, "{path}")
    loaded = []

    class Rooms:
        def find_spec(self, name, path, target=None):
            if name in ("tfbig.models", "tfbig.training"):
                loaded.append((name, hasattr(sys.modules["keras"], "backend"),
                               hasattr(sys.modules["tensorflow"], "complete")))
                return importlib.machinery.ModuleSpec(name, self)
        def create_module(self, spec): pass
        def exec_module(self, module): pass

    import importlib.machinery, importlib.util
    sys.meta_path.insert(0, Rooms())
    {first}
    assert loaded == [("tfbig.models", True, True), ("tfbig.training", True, True)], loaded
    assert not [f for f in sys.meta_path if type(f).__module__ == "tfbig._registration"]
"""
ASKED = "assert importlib.util.find_spec('keras') and not loaded; import keras"
AGAIN = """
    sys.modules["json"] = None
    try: import keras
    except ImportError: assert not loaded
    else: raise AssertionError
    del sys.modules["json"]
    import keras
"""


@pytest.mark.parametrize("first", ["import keras", "import tensorflow", ASKED, AGAIN])
def test_registers_once_when_both_are_complete(first, tmp_path):
    """Who asks whether Keras is installed, or fails to import it, does not end the waiting."""
    (tmp_path / "keras.py").write_text("import json\n" + KERAS.format(other="tensorflow"))
    (tmp_path / "tensorflow.py").write_text("import keras\ncomplete = True\n")
    run(HOOK.format(path=tmp_path, first=first))


def test_a_failure_to_register_is_a_warning(monkeypatch):
    monkeypatch.setitem(sys.modules, "tfbig.training", None)
    with pytest.warns(RuntimeWarning, match="may not find tfbig's classes: ModuleNotFoundError"):
        _registration.register()


WITHOUT_TENSORFLOW = """
    import sys
    from importlib.machinery import PathFinder

    class Absent:
        def find_spec(self, name, path=None, target=None):
            if name.split(".")[0] != "tensorflow":
                return PathFinder.find_spec(name, path, target)

    sys.meta_path[:] = [Absent() if f is PathFinder else f for f in sys.meta_path]
    import tfbig, keras
    import numpy as np
    assert "tfbig.training" not in sys.modules
    network = keras.models.load_model("{saved}/network.keras")
    assert type(network) is tfbig.models.NeuralNetwork
    x = np.ones((8, 3), "float32")
    assert network(x).shape == (8, 1)
    if keras.backend.backend() != "numpy":
        network.compile(keras.optimizers.SGD(0.1), "binary_crossentropy")
        losses = network.fit(x, np.ones((8, 1)), epochs=3, verbose=0).history["loss"]
        assert losses[0] > losses[1] > losses[2], losses
    # The samplers, too: of (3, 4) the first has the probability 1 / (1 + e) = 0.269.
    from tfbig.generation import Forbidden, sampler_of
    from tfbig.generation.samplers import drawn
    logits = keras.ops.array([[3.0, 4.0, 9.0, 1.0]])
    left = sampler_of(1.0, top_k=2)(Forbidden([2])(logits, None), None)
    uniforms = keras.ops.array([0.26]), keras.ops.array([0.27])
    assert [int(drawn(left, uniform)[0]) for uniform in uniforms] == [0, 1]
    {then}
    assert not [name for name in sys.modules if name.startswith("tensorflow.")]
"""
# The gradient of mean((w x)^2) by w, for w = 1 and x = 1 in 2 columns: 2 (1 + 1) = 4 each.
# The probe is read from its file: what stands around it needs TensorFlow.
PROBE = """
    import importlib.util
    path = importlib.util.find_spec("tfbig").submodule_search_locations[0] + "/parity/probe.py"
    spec = importlib.util.spec_from_file_location("probe", path)
    probe = importlib.util.module_from_spec(spec); spec.loader.exec_module(probe)
    model = keras.Sequential([keras.layers.Dense(1, kernel_initializer="ones")])
    model.compile(probe.Probe(), loss="mse")
    model.fit(np.ones((4, 2)), np.zeros((4, 1)), verbose=0)
    assert np.allclose(model.optimizer.gradients()[0], 4.0), model.optimizer.gradients()
    assert np.allclose(model.get_weights()[0], 1.0)
"""


def need(package, backend):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed: Keras's {backend} backend is not tried")


# Keras's NumPy backend takes its Fourier transforms from JAX, so it cannot be loaded without; it
# has no gradients to probe. One process for both: to load a backend is what takes time.
@pytest.mark.parametrize(
    ("backend", "package", "then"),
    [("numpy", "jax", ""), ("jax", "jax", PROBE), ("torch", "torch", PROBE)],
    ids=["numpy", "jax", "torch"],
)
def test_models_and_the_probe_need_no_tensorflow(backend, package, then, saved):
    need(package, backend)
    run(WITHOUT_TENSORFLOW.format(saved=saved, then=then.strip()), KERAS_BACKEND=backend)
