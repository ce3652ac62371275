"""Has Keras know our classes as soon as Keras is loaded, and loads nothing before.

`keras.models.load_model` finds a class by its registered name, and only in modules that are already
imported. So `import tfbig` leaves a finder in `sys.meta_path` that waits for Keras and TensorFlow,
and imports our serializable modules when neither is half loaded. (Each imports the other in the
midst of its own start, so whichever came first ends last.)
"""

import importlib
import importlib.abc
import sys
import warnings
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType


def when_keras_is_loaded() -> None:
    """Registers our classes now if Keras is loaded, else once it is."""
    if "keras" in sys.modules:
        register()
    else:
        sys.meta_path.insert(0, _WaitForKeras())


def register() -> None:
    """Imports the modules whose classes a `.keras` file may name.

    A failure is a warning: it must not take `import keras` from a program that never loads a model
    of ours.
    """
    try:
        # Where another thread is still at it, this waits for it.
        keras = importlib.import_module("keras")
        importlib.import_module("tfbig.models")
        if keras.backend.backend() == "tensorflow":
            importlib.import_module("tfbig.training")
    except Exception as error:
        warnings.warn(
            f"keras.models.load_model may not find tfbig's classes: {error!r}. "
            "To see where that comes from, import tfbig.models and tfbig.training.",
            RuntimeWarning,
            stacklevel=2,
        )


class _WaitForKeras(importlib.abc.MetaPathFinder):
    """Finds Keras and TensorFlow as the other finders do, and registers when both have run."""

    def __init__(self) -> None:
        self._running: set[str] = set()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in ("keras", "tensorflow"):
            return None
        others = [finder for finder in sys.meta_path if finder is not self]
        found = (finder.find_spec(fullname, path, target) for finder in others)
        spec = next((spec for spec in found if spec is not None), None)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            self._running.add(fullname)
            try:
                execute(module)
            finally:
                self._running.remove(fullname)
            # Not in find_spec: who only asks whether Keras is installed loads nothing.
            if self in sys.meta_path and "keras" in sys.modules and not self._running:
                sys.meta_path.remove(self)
                register()

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec
