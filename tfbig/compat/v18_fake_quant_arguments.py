"""V18: in a functional model `fake_quant_with_min_max_vars` forgets its arguments.

With symbolic inputs Keras makes an operation without passing `num_bits`, `narrow_range` and `axis`
on: what was to be 2 bits is 8. At 0.5 between -1 and 1 the grid of 2 bits has 0.6667, and the
functional model gives 0.502.
"""

import keras
import numpy as np
from keras.src.quantizers.quantizers import FakeQuantWithMinMaxVars

from tfbig.compat import ask, trial

SUMMARY = "fake_quant_with_min_max_vars in a functional model has 8 bits, whatever was asked"
WHEN = "if you asked for other bits than 8, a narrow range or an axis"
MEND = "call it inside the call() of a keras.Layer"


def meets(model: keras.Model) -> bool:
    """Whether the operation stands in a functional model."""
    return any(isinstance(op, FakeQuantWithMinMaxVars) for op in ask.operations(model))


def present() -> bool:
    """Whether 2 bits give the grid of 8."""
    return abs(measured() - 2 / 3) > 0.01


@trial.traceless()
def measured() -> float:
    """0.5 on the grid of 2 bits from -1 to 1: by hand 2/3, for the steps are 2/3 around 0."""
    x = keras.Input((1,))
    y = keras.quantizers.fake_quant_with_min_max_vars(x, -1.0, 1.0, num_bits=2)
    return float(keras.Model(x, y)(np.full((1, 1), 0.5, "float32"))[0, 0])
