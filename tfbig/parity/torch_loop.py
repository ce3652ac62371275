"""A PyTorch loop beside ours: the gradients of both, on the same weights and batch."""

from collections.abc import Callable, Mapping
from typing import Any

import keras

from tfbig.parity import state as states
from tfbig.parity.compare import fit_gradients
from tfbig.parity.report import Report, rows


def compare_torch(
    model: keras.Model,
    module: Any,
    backward: Callable[[], Any],
    x: Any,
    y: Any = None,
    sample_weight: Any = None,
    config: Mapping[str, Any] | None = None,
    tolerance: float = 1e-4,
) -> Report:
    """Compares the gradients of stock `model.fit` with those that a PyTorch loop leaves in `.grad`.

    Dropout draws other numbers in PyTorch: set it to 0 in both, or `module.eval()` and a model
    without any.

    Args:
        model: a compiled network of a family of `tfbig.interop`; it is left as it was. Its weights
            are to be the module's: `from_torch` or `to_torch`.
        module: the PyTorch module.
        backward: runs the loop's step as far as `loss.backward()`, on the same batch. Gradients
            left from before are set to None first.
        x, y, sample_weight: the batch, as `fit` takes it.
        config: as in config.json; None: that of `module.config`.
        tolerance: the largest error that counts as equal. 1e-4: two libraries sum in other orders,
            which is 1e-6 to 1e-5 in float32.

    Returns:
        The report: one row for each variable, fit's gradient and PyTorch's.

    Raises:
        ValueError: if the model is not compiled.
        CheckpointError: if the module is not of the network's family and sizes.
        ImportError: if torch is not installed.
    """
    from tfbig.interop.torch_modules import gradients_from_torch

    states.build(model, x, y, sample_weight)
    with states.unchanged(model):
        reference = fit_gradients(model, x, y, sample_weight)
    module.zero_grad(set_to_none=True)
    backward()
    candidate = gradients_from_torch(model, module, config)
    paths = [v.path for v in model.trainable_variables]
    return Report(rows=rows(paths, reference, candidate), tolerance=tolerance, independent=True)
