"""The proof that a network of ours is the one that `transformers` runs, as a certificate in JSON.

Both get the same weights and the same batch, with padding in it. Compared are the outputs, the
hidden states layer by layer, the gradient of the loss for every variable, the weights after five
steps of AdamW, and, bit for bit, what `save` writes against what was loaded. It takes memory for
about ten times the weights in float32: two networks, their gradients and AdamW's slots.

Everything runs without dropout: random numbers are no part of the comparison.
"""

import dataclasses
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tfbig.interop import certificate_inputs as inputs
from tfbig.interop.certificate_training import (
    gradient_error,
    rounding_error,
    torch_gradients,
    training_error,
)
from tfbig.interop.checkpoint import open_checkpoint
from tfbig.interop.family import Config, architecture
from tfbig.interop.loading import load, save, table
from tfbig.interop.torch_modules import StateDict, to_numpy
from tfbig.models import Block

# Float32 gives 1e-7 (outputs) to 1e-5 (small gradients) in networks of a few layers.
TOLERANCE = 1e-4
# Of what a rounding of the weights does to the gradients by itself; and never more than this.
ROUNDINGS, MOST = 10, 1e-2


@dataclasses.dataclass(frozen=True)
class Certificate:
    """What was measured; each number is the largest relative error and is to be below `tolerance`.

    Attributes:
        model: the architecture.
        outputs: of the logits or states, over tokens that are no padding, relative to their largest
            (at least 1).
        left_padded: of the logits of a batch padded on the left, with positions; None where the
            network is not causal.
        hidden_states: of the states after each layer, first to last, relative to their largest.
        gradients: over all variables: |a - b| / max(|b|, 1e-6 x the global norm).
        weights_after_steps: over all variables, after five steps of AdamW.
        zero_gradient: variables whose true gradient is zero, which are left out of both.
        round_trip: whether each tensor that `save` writes is, bit for bit, the one loaded.
        rounding: by how much PyTorch's own gradients change when each weight is rounded otherwise:
            in thirty layers by more than 1e-4. Gradients and trained weights may differ by ten
            times this.
        versions: of the packages.
    """

    model: str
    outputs: float
    left_padded: float | None
    hidden_states: tuple[float, ...]
    gradients: float
    weights_after_steps: float
    zero_gradient: tuple[str, ...]
    round_trip: bool
    tolerance: float = TOLERANCE
    rounding: float = 0.0
    versions: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def tolerance_of_gradients(self) -> float:
        """What is allowed for gradients and trained weights."""
        return min(max(self.tolerance, ROUNDINGS * self.rounding), MOST)

    @property
    def passed(self) -> bool:
        """Whether all of it holds."""
        errors = [self.outputs, *self.hidden_states]
        if self.left_padded is not None:
            errors.append(self.left_padded)
        trained = [self.gradients, self.weights_after_steps]
        # One by one: max() of a list with NaN in it may be a number.
        small = all(error <= self.tolerance for error in errors)
        small = small and all(error <= self.tolerance_of_gradients for error in trained)
        return self.round_trip and bool(self.hidden_states) and small

    def to_json(self) -> str:
        """All of it as JSON, with `passed`."""
        return json.dumps({**dataclasses.asdict(self), "passed": self.passed}, indent=2)

    def write(self, path: str | Path) -> None:
        """Writes the JSON, atomically."""
        temporary = Path(f"{path}.writing")
        temporary.write_text(self.to_json() + "\n", encoding="utf-8")
        os.replace(temporary, path)


def certify(path: str | Path) -> Certificate:
    """Loads a Hugging Face folder with tfbig and with `transformers`, and compares them.

    Args:
        path: of the folder; or of a GGUF file, which is first saved as a folder: so what is proved
            of it is the network, not how the file is read.

    Raises:
        CheckpointError: if it cannot be loaded.
        ImportError: if torch or transformers is not installed.
    """
    transformers = _transformers()
    with open_checkpoint(path) as checkpoint:
        config = checkpoint.config
        if checkpoint.format == "gguf":
            with tempfile.TemporaryDirectory() as folder:
                save(load(path, dtype="float32")[0], f"{folder}/model")
                return certify(f"{folder}/model")
        ours, _ = load(path, dtype="float32")
        module = getattr(transformers, architecture(config)).from_pretrained(
            path, attn_implementation="eager", dtype="float32"
        )
        stored = {name: checkpoint.read(name) for name in checkpoint.names()}
    return compare(ours, module, config, stored)


def compare(
    ours: keras.Model, module: Any, config: Config, stored: dict[str, np.ndarray] | None = None
) -> Certificate:
    """Compares a network with a module of `transformers` that has the same weights.

    Args:
        ours: the network; its weights are put back at the end.
        module: in eager attention; its weights are trained for five steps.
        config: of config.json.
        stored: the tensors that the network was loaded from; None: the module's.
    """
    stored = dict(_stored(module)) if stored is None else stored
    module.eval()
    round_trip = _round_trip(ours, config, stored)
    example = inputs.example(ours, config)
    output, states = _our_states(ours, example)
    their_output, their_states = _their_states(module, example)
    left_padded = _left_padded(ours, module, config)
    theirs = torch_gradients(ours, module, example, config)
    zero, gradients = gradient_error(ours, example, theirs)
    rounding = rounding_error(ours, module, example, config, theirs)
    # Last: it changes the module.
    weights_error = training_error(ours, module, example, config, zero)
    return Certificate(
        model=architecture(config) or type(module).__name__,
        outputs=_relative(output, their_output, example.valid),
        left_padded=left_padded,
        hidden_states=tuple(
            _relative(a, b, example.valid_state(a))
            for a, b in zip(states, their_states, strict=True)
        ),
        gradients=gradients,
        weights_after_steps=weights_error,
        zero_gradient=tuple(sorted(zero)),
        round_trip=round_trip,
        rounding=rounding,
        versions=_versions(),
    )


def _relative(a: np.ndarray, b: np.ndarray, valid: np.ndarray | None) -> float:
    """The largest difference where it counts, in parts of b's largest number (at least 1)."""
    if valid is not None and a.ndim > 2:
        a, b = a[valid.astype(bool)], b[valid.astype(bool)]
    return float(np.abs(a - b).max()) / max(1.0, float(np.abs(b).max()))


def _our_states(model: keras.Model, example: inputs.Example) -> tuple[np.ndarray, list[np.ndarray]]:
    from tfbig.training import tap

    with tap(model, lambda layer: isinstance(layer, Block)) as seen:
        output = inputs.output(model, example.ours)
    states = [keras.ops.convert_to_numpy(outputs[0]) for outputs in seen.values()]
    return keras.ops.convert_to_numpy(output), states


def _their_states(module: Any, example: inputs.Example) -> tuple[np.ndarray, list[np.ndarray]]:
    """The output, and what each layer puts out.

    By hooks: the last of `output_hidden_states` has passed the final norm.
    """
    import torch

    states: list[np.ndarray] = []

    def record(layer: Any, arguments: Any, result: Any) -> None:
        states.append(to_numpy(result[0] if isinstance(result, tuple) else result))

    hooks = [layer.register_forward_hook(record) for layer in inputs.torch_layers(module)]
    try:
        with torch.no_grad():
            output = inputs.torch_output(module(**example.theirs))
    finally:
        for hook in hooks:
            hook.remove()
    return to_numpy(output), states


def _left_padded(model: keras.Model, module: Any, config: Config) -> float | None:
    example = inputs.left_padded(model, config)
    if example is None:
        return None
    import torch

    with torch.no_grad():
        theirs = to_numpy(inputs.torch_output(module(**example.theirs)))
    ours = keras.ops.convert_to_numpy(inputs.output(model, example.ours))
    return _relative(ours, theirs, example.valid)


def _round_trip(model: keras.Model, config: Config, stored: dict[str, np.ndarray]) -> bool:
    """Whether what `save` writes is what was loaded, where the network has a place for it."""
    from tfbig.interop.families import family_of

    family = family_of(config)
    loaded = family.joined(_Stored(stored))
    names = table(family, config, model, loaded.names())
    with tempfile.TemporaryDirectory() as folder:
        dtype = str(loaded.read(names[0].theirs).dtype)
        save(model, f"{folder}/model", config=config, dtype=dtype)
        with open_checkpoint(f"{folder}/model") as checkpoint:
            written = family.joined(checkpoint)
            # Row by row: the file may spell a name otherwise than the module does.
            pairs = zip(names, table(family, config, model, written.names()), strict=True)
            return all(
                loaded.read(there.theirs).tobytes() == written.read(here.theirs).tobytes()
                for there, here in pairs
            )


class _Stored:
    """Arrays in a dict, as tensors by name."""

    def __init__(self, arrays: dict[str, np.ndarray]) -> None:
        self.arrays = arrays

    def names(self) -> tuple[str, ...]:
        return tuple(self.arrays)

    def read(self, name: str) -> np.ndarray:
        return self.arrays[name]


def _stored(module: Any) -> Iterator[tuple[str, np.ndarray]]:
    state = StateDict(module.state_dict())
    return ((name, state.read(name).copy()) for name in state.names())


def _transformers() -> Any:
    try:
        import torch  # noqa: F401
        import transformers
    except ImportError as error:
        raise ImportError(
            "To certify is to compare with PyTorch: pip install torch transformers"
        ) from error
    return transformers


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    packages: Sequence[str] = ("tensorflow", "keras", "torch", "transformers", "tfbig")
    return {package: version(package) for package in packages}
