"""Has Keras know our classes as soon as Keras is loaded, and loads nothing before.

`keras.models.load_model` finds a class by its registered name, and only in modules that are already
imported. So `import tfbig` leaves a finder in `sys.meta_path` that waits for Keras and TensorFlow,
and imports our serializable modules when both are complete. (TensorFlow imports Keras in the midst
of its own start; registering then would meet half of TensorFlow.)
"""

import importlib
import importlib.abc
import importlib.util
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType


def when_keras_is_loaded() -> None:
    """Registers our classes now if Keras is loaded, else once it is."""
    for name in ("keras", "tensorflow"):
        if name not in sys.modules:
            sys.meta_path.insert(0, _WaitFor(name))
    _register_if_complete()


def _register_if_complete() -> None:
    if "keras" not in sys.modules or any(map(_is_loading, ("keras", "tensorflow"))):
        return
    importlib.import_module("tfbig.models")
    if sys.modules["keras"].backend.backend() == "tensorflow":
        importlib.import_module("tfbig.training")


def _is_loading(name: str) -> bool:
    # The import system sets this for as long as the module's code runs.
    return bool(getattr(getattr(sys.modules.get(name), "__spec__", None), "_initializing", False))


class _WaitFor(importlib.abc.MetaPathFinder):
    """Finds one module as the other finders do, once, and registers after its code has run."""

    def __init__(self, name: str) -> None:
        self._name = name

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self._name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            module.__spec__._initializing = False  # type: ignore[union-attr]  # it has run
            _register_if_complete()

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec
