"""Has Keras know our classes as soon as Keras is loaded, and loads nothing before.

`keras.models.load_model` finds a class by its registered name, and only in modules that are already
imported. So `import tfbig` leaves a finder in `sys.meta_path` that waits for `import keras`, steps
aside, and imports our serializable modules when Keras is complete.
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
    keras = sys.modules.get("keras")
    if keras is None:
        sys.meta_path.insert(0, _WaitForKeras())
    elif not _is_loading(keras):
        register()


def register() -> None:
    """Imports the modules whose classes a `.keras` file may name."""
    keras = importlib.import_module("keras")
    importlib.import_module("tfbig.models")
    if keras.backend.backend() == "tensorflow":
        importlib.import_module("tfbig.training")


def _is_loading(module: ModuleType) -> bool:
    # Set by the import system for as long as the module's code runs.
    return bool(getattr(module.__spec__, "_initializing", False))


class _WaitForKeras(importlib.abc.MetaPathFinder):
    """Finds `keras` as the other finders do, once, and registers after its code has run."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "keras":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec("keras")
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            register()

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec
