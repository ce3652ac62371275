"""Weights to and from PyTorch modules, and their gradients, by the tables of names.

`from_torch` and `to_torch` go through no file. With `gradients_from_torch` the gradients of a
PyTorch loop stand in our order and layout, so that `tfbig.parity` compares them with ours.
"""

from typing import Any

import keras
import numpy as np

from tfbig.interop.families import family_of
from tfbig.interop.family import Config
from tfbig.interop.loading import network, table
from tfbig.interop.names import Name, to_ours, to_theirs, variable
from tfbig.interop.stored_tensor import CheckpointError


class StateDict:
    """The tensors of a PyTorch module by name, one NumPy array at a time.

    Args:
        state: of `module.state_dict()`.
    """

    def __init__(self, state: Any) -> None:
        self.state = state

    def names(self) -> tuple[str, ...]:
        """All names."""
        return tuple(self.state)

    def read(self, name: str) -> np.ndarray:
        """One tensor."""
        return to_numpy(self.state[name])


def to_numpy(tensor: Any) -> np.ndarray:
    """A PyTorch tensor as a NumPy array; bfloat16, which NumPy lacks, as that of `ml_dtypes`."""
    import torch

    tensor = tensor.detach().cpu()
    if tensor.dtype == torch.bfloat16:
        import ml_dtypes

        return tensor.view(torch.uint16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()


def from_torch(module: Any, config: Config | None = None, dtype: str | None = None) -> keras.Model:
    """Our network with the weights of a PyTorch module.

    Args:
        module: a model of `transformers`, or any module with its names.
        config: as in config.json; None: that of `module.config`.
        dtype: a Keras dtype policy; None: the global one.

    Raises:
        CheckpointError: if its names or shapes are not those of the family.
    """
    return network(_config(module, config), StateDict(module.state_dict()), dtype)


def to_torch(model: keras.Model, module: Any, config: Config | None = None) -> Any:
    """Writes our weights into a PyTorch module of the same family, and returns it.

    Args:
        model: our network.
        module: of the same config.
        config: None: that of `module.config`.
    """
    import torch

    state = module.state_dict()
    with torch.no_grad():
        for name in torch_table(model, module, config):
            arrays = [keras.ops.convert_to_numpy(variable(model, path)) for path in name.paths]
            # Not `ascontiguousarray`, which gives an array without axes one.
            array = np.asarray(to_theirs(name, arrays), "float32", order="C")
            if tuple(array.shape) != tuple(state[name.theirs].shape):
                raise CheckpointError(
                    f"The module's {name.theirs!r} has shape {tuple(state[name.theirs].shape)}, "
                    f"and ours {tuple(array.shape)}: they are of other configs."
                )
            state[name.theirs].copy_(torch.from_numpy(array))
    return module


def gradients_from_torch(
    model: keras.Model, module: Any, config: Config | None = None
) -> list[np.ndarray]:
    """The `.grad` of a module's parameters, in the order of `model.trainable_variables`.

    A parameter without a gradient gives zeros.

    Args:
        model: our network.
        module: of the same config, after `loss.backward()`.
        config: None: that of `module.config`.
    """
    parameters = dict(module.named_parameters(remove_duplicate=False))
    found: dict[int, np.ndarray] = {}
    for name in torch_table(model, module, config):
        if name.theirs not in parameters:  # a buffer
            continue
        parameter = parameters[name.theirs]
        gradient = parameter.detach() * 0 if parameter.grad is None else parameter.grad
        variables = [variable(model, path) for path in name.paths]
        shapes = [tuple(v.shape) for v in variables]
        for target, array in zip(variables, to_ours(name, to_numpy(gradient), shapes), strict=True):
            found[id(target)] = array
    return [found[id(v)] for v in model.trainable_variables]


def torch_table(model: keras.Model, module: Any, config: Config | None = None) -> list[Name]:
    """The table of names for a module and our network."""
    config = _config(module, config)
    return table(family_of(config), config, model, tuple(module.state_dict()))


def _config(module: Any, config: Config | None) -> dict[str, Any]:
    if config is not None:
        return dict(config)
    # A config that was never saved names no architecture, one of a part that of the whole.
    return {**module.config.to_dict(), "architectures": [type(module).__name__]}
