"""The part of a certificate that trains: the gradient of each variable, and five steps of AdamW."""

from typing import Any

import keras
import numpy as np

from tfbig.interop import certificate_inputs as inputs
from tfbig.interop.family import Config
from tfbig.interop.names import to_ours, variable
from tfbig.interop.torch_modules import StateDict, gradients_from_torch, torch_table

STEPS, LEARNING_RATE, DECAY = 5, 1e-3, 0.01
# AdamW divides by the root of the second moment, which makes as much of a gradient that is rounding
# as of any other, where epsilon does not outweigh it.
EPSILON = 1e-6


def gradient_error(
    model: keras.Model, example: inputs.Example, theirs: list[np.ndarray]
) -> tuple[set[str], float]:
    """The paths of the variables whose gradient is zero, and the largest error of the others."""
    return _compared(model, inputs.gradients(model, example), theirs)


def rounding_error(
    model: keras.Model,
    module: Any,
    example: inputs.Example,
    config: Config,
    theirs: list[np.ndarray],
) -> float:
    """By how much the module's own gradients change when each weight is moved by a rounding.

    No computation in float32 can be expected to come nearer than this to another. The module's
    weights are put back.
    """
    import torch

    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    generator = torch.Generator().manual_seed(0)
    try:
        with torch.no_grad():
            for parameter in module.parameters():
                noise = torch.rand(parameter.shape, generator=generator) - 0.5
                parameter.mul_(1 + 2**-23 * noise.to(parameter.dtype))
        return _compared(model, torch_gradients(model, module, example, config), theirs)[1]
    finally:
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                parameter.copy_(before[name])


def torch_gradients(
    model: keras.Model, module: Any, example: inputs.Example, config: Config
) -> list[np.ndarray]:
    """The module's gradients, in the order of `model.trainable_variables`."""
    module.zero_grad()
    inputs.torch_loss(inputs.torch_output(module(**example.theirs)), example).backward()
    # Copies: the next backward pass writes into the same memory.
    return [np.array(g) for g in gradients_from_torch(model, module, config)]


def _compared(
    model: keras.Model, ours: list[np.ndarray], theirs: list[np.ndarray]
) -> tuple[set[str], float]:
    norm = float(np.sqrt(sum(np.sum(np.square(g, dtype="float64")) for g in theirs)))
    zero, errors = set(), [0.0]
    for weight, a, b in zip(model.trainable_variables, ours, theirs, strict=True):
        length, floor = float(np.linalg.norm(b)), 1e-6 * norm
        # A NaN is no zero.
        if length < floor and float(np.linalg.norm(a)) < floor:
            zero.add(weight.path)
        else:
            errors.append(float(np.linalg.norm(a - b)) / max(length, floor))
    return zero, float(np.max(errors))  # which is NaN if one is


def training_error(
    model: keras.Model, module: Any, example: inputs.Example, config: Config, zero: set[str]
) -> float:
    """The largest error of a variable after the steps, without those whose gradient is zero.

    Our weights are put back at the end, the module's stay trained.
    """
    import torch

    before = [keras.ops.convert_to_numpy(v) for v in model.trainable_variables]
    _freeze_alike(model, module, config)
    ours = keras.optimizers.AdamW(LEARNING_RATE, weight_decay=DECAY, epsilon=EPSILON)
    theirs = torch.optim.AdamW(module.parameters(), LEARNING_RATE, weight_decay=DECAY)
    try:
        for step in range(1, STEPS + 1):
            # Keras adds epsilon before the bias correction (Adam's "epsilon hat"), torch after it.
            theirs.param_groups[0]["eps"] = EPSILON / (1 - ours.beta_2**step) ** 0.5
            theirs.zero_grad()
            inputs.torch_loss(inputs.torch_output(module(**example.theirs)), example).backward()
            theirs.step()
            ours.apply(inputs.gradients(model, example), model.trainable_variables)
        expected = _as_ours(model, module, config)
        errors = [0.0]
        for weight in model.trainable_variables:
            if weight.path not in zero:
                b = expected[id(weight)]
                a = keras.ops.convert_to_numpy(weight)
                errors.append(float(np.linalg.norm(a - b)) / max(float(np.linalg.norm(b)), 1e-12))
        return float(np.max(errors))
    finally:
        for weight, value in zip(model.trainable_variables, before, strict=True):
            weight.assign(value)


def _freeze_alike(model: keras.Model, module: Any, config: Config) -> None:
    """Lets the module train what is a variable to train in ours, and nothing else.

    Given positions, and Marian's bias, are not. transformers creates those frozen, and forgets it
    when it loads them.
    """
    parameters = dict(module.named_parameters(remove_duplicate=False))
    trained = {
        id(parameters[name.theirs])
        for name in torch_table(model, module, config)
        if name.theirs in parameters and any(variable(model, p).trainable for p in name.paths)
    }
    for parameter in parameters.values():
        parameter.requires_grad_(id(parameter) in trained)


def _as_ours(model: keras.Model, module: Any, config: Config) -> dict[int, np.ndarray]:
    state, found = StateDict(module.state_dict()), {}
    for name in torch_table(model, module, config):
        targets = [variable(model, path) for path in name.paths]
        arrays = to_ours(name, state.read(name.theirs), [tuple(v.shape) for v in targets])
        found.update({id(v): array for v, array in zip(targets, arrays, strict=True)})
    return found
