"""The textbook's training of a network, by hand, in NumPy and double precision.

    1. forward propagation    a_0 = x;  z_k = a_(k-1) W_k + b_k;  a_k = f(z_k)
    2. the loss               J = mean squared error, or cross-entropy
    3. back-propagation       delta_k = dJ / dz_k, from the last layer to the first
    4. gradient descent       theta <- theta - alpha dJ / dtheta
    5. repeat

No TensorFlow, no tape: each derivative is written down. It is the oracle that the drivers are held
to, and the page that says what they do. Parameters are a list of `(kernel, bias)`, one pair for
each layer, with kernels of shape `(inputs, units)` as Keras's are.

Hidden layers are relu. The last layer and the loss belong together, so that the derivative of the
loss by the last z is simple and exact: `"mse"` with a linear layer, `"binary_crossentropy"` with a
sigmoid, `"categorical_crossentropy"` with a softmax, `"mse_sigmoid"` with a sigmoid.
"""

from collections.abc import Callable, Sequence

import numpy as np

Array = np.ndarray
Parameters = list[tuple[Array, Array]]
Loss = Callable[[Array, Array], tuple[float, Array]]


def relu(z: Array) -> Array:
    """max(z, 0)"""
    return np.maximum(z, 0.0)


def sigmoid(z: Array) -> Array:
    """1 / (1 + exp(-z)), without overflow.

    >>> sigmoid(np.array([0.0, -1000.0])).tolist()
    [0.5, 0.0]
    """
    return np.exp(-np.logaddexp(0.0, -z))


def softmax(z: Array) -> Array:
    """exp(z) / sum(exp(z)) over the last axis, without overflow."""
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def mean_squared_error(z: Array, y: Array) -> tuple[float, Array]:
    """J = mean (z - y)^2 and dJ/dz, for z and y of shape `(batch, outputs)`.

    >>> mean_squared_error(np.array([[3.0]]), np.array([[1.0]]))
    (4.0, array([[4.]]))
    """
    return float(np.mean((z - y) ** 2)), 2.0 * (z - y) / z.size


def mean_squared_error_of_sigmoid(z: Array, y: Array) -> tuple[float, Array]:
    """J = mean (s(z) - y)^2 and dJ/dz, with the chain rule through s' = s (1 - s)."""
    value, slope = mean_squared_error(sigmoid(z), y)
    return value, slope * sigmoid(z) * sigmoid(-z)  # 1 - s(z) = s(-z), without cancellation


def binary_cross_entropy(z: Array, y: Array) -> tuple[float, Array]:
    """J = -mean (y log s(z) + (1 - y) log(1 - s(z))) and dJ/dz = (s(z) - y) / size.

    Written in z, it loses nothing where s(z) rounds to 0 or 1: log s(z) = -log(1 + exp(-z)), and
    s(z) - y = (1 - y) s(z) - y s(-z).
    """
    value = np.mean(y * np.logaddexp(0.0, -z) + (1.0 - y) * np.logaddexp(0.0, z))
    return float(value), ((1.0 - y) * sigmoid(z) - y * sigmoid(-z)) / z.size


def cross_entropy(z: Array, y: Array) -> tuple[float, Array]:
    """J = -mean over the batch of sum_c y_c log softmax(z)_c, and dJ/dz; y is one row of
    probabilities for each example."""
    shifted = z - z.max(axis=-1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    value = -np.mean((y * log_p).sum(axis=-1))
    return float(value), (softmax(z) * y.sum(axis=-1, keepdims=True) - y) / len(z)


# The last layer's activation, and the loss with its derivative by the last z.
LOSSES: dict[str, tuple[Callable[[Array], Array], Loss]] = {
    "mse": (lambda z: z, mean_squared_error),
    "mse_sigmoid": (sigmoid, mean_squared_error_of_sigmoid),
    "binary_crossentropy": (sigmoid, binary_cross_entropy),
    "categorical_crossentropy": (softmax, cross_entropy),
}


def _named(loss: str) -> tuple[Callable[[Array], Array], Loss]:
    if loss not in LOSSES:
        raise ValueError(f"loss is {loss!r}; one of {', '.join(LOSSES)} is expected.")
    return LOSSES[loss]


def from_weights(weights: Sequence[Array]) -> Parameters:
    """Pairs of float64 from a flat list `[kernel, bias, kernel, bias, ...]`, Keras's order, or a
    ValueError if they do not fit to one another."""
    if not weights or len(weights) % 2:
        raise ValueError(
            f"A kernel and a bias for each layer are expected, not {len(weights)} arrays: give "
            "model.get_weights() of a network of Dense layers with biases."
        )
    pairs = [
        (np.array(kernel, "float64"), np.array(bias, "float64"))
        for kernel, bias in zip(weights[::2], weights[1::2], strict=True)
    ]
    for number, (kernel, bias) in enumerate(pairs):
        if kernel.ndim != 2 or bias.shape != (kernel.shape[1],):
            raise ValueError(
                f"Layer {number}: a kernel (inputs, units) and a bias (units,) are expected, and "
                f"the shapes are {kernel.shape} and {bias.shape}."
            )
        if number and pairs[number - 1][0].shape[1] != kernel.shape[0]:
            inputs, units = len(kernel), pairs[number - 1][0].shape[1]
            raise ValueError(f"Layer {number} takes {inputs} inputs; the one before has {units}.")
    return pairs


def forward(parameters: Parameters, x: Array) -> tuple[list[Array], list[Array]]:
    """Step 1, forward propagation of x, `(batch, inputs)`.

    Returns:
        The sums `z_1` to `z_n`, and the inputs of each layer, `a_0` (which is x) to `a_(n-1)`, each
        of shape `(batch, units)`. The last layer's activation belongs to the loss: see `predict`.
    """
    sums: list[Array] = []
    activations = [np.asarray(x, "float64")]
    for number, (kernel, bias) in enumerate(parameters):
        if activations[-1].shape[1:] != kernel.shape[:1]:
            inputs, given = len(kernel), activations[-1].shape
            raise ValueError(f"Layer {number} takes (batch, {inputs}), not {given}.")
        sums.append(activations[-1] @ kernel + bias)
        if number < len(parameters) - 1:
            activations.append(relu(sums[-1]))
    return sums, activations


def predict(parameters: Parameters, x: Array, loss: str) -> Array:
    """The network's outputs, `(batch, outputs)`, through the last activation of that loss."""
    return _named(loss)[0](forward(parameters, x)[0][-1])


def back_propagation(
    parameters: Parameters, sums: list[Array], activations: list[Array], delta: Array
) -> Parameters:
    """Step 3: dJ/dtheta, a `(dW, db)` for each layer, from `forward`'s lists and dJ/dz_n."""
    gradient: Parameters = []
    for layer in reversed(range(len(parameters))):
        gradient.insert(0, (activations[layer].T @ delta, delta.sum(axis=0)))
        if layer:
            kernel, _ = parameters[layer]
            delta = (delta @ kernel.T) * (sums[layer - 1] > 0)  # relu' is a step
    return gradient


def loss_and_gradient(
    parameters: Parameters, x: Array, y: Array, loss: str
) -> tuple[float, Parameters]:
    """Steps 1 to 3: the loss J of a batch, and dJ/dtheta in the shape of the parameters.

    `x` is `(batch, inputs)`, `y` is `(batch, outputs)`, and `loss` is a key of `LOSSES`.

    >>> theta = [(np.array([[2.0]]), np.array([0.0]))]               # one neuron: z = 2 x
    >>> loss_and_gradient(theta, np.array([[3.0]]), np.array([[5.0]]), "mse")  # (6 - 5)^2
    (1.0, [(array([[6.]]), array([2.]))])
    """
    (sums, activations), y = forward(parameters, x), np.asarray(y, "float64")
    if y.shape != sums[-1].shape:
        raise ValueError(f"Targets of shape {sums[-1].shape} are expected, and y is {y.shape}.")
    value, delta = _named(loss)[1](sums[-1], y)
    return value, back_propagation(parameters, sums, activations, delta)


def gradient_descent(
    parameters: Parameters, gradient: Parameters, learning_rate: float
) -> Parameters:
    """Step 4: theta <- theta - alpha dJ/dtheta, alpha being the learning rate."""
    pairs = zip(parameters, gradient, strict=True)
    return [(w - learning_rate * dw, b - learning_rate * db) for (w, b), (dw, db) in pairs]


def train(
    parameters: Parameters,
    x: Array,
    y: Array,
    *,
    loss: str,
    learning_rate: float,
    epochs: int,
    batch_size: int = 32,
    seed: int = 0,
) -> tuple[Parameters, list[float]]:
    """Step 5: all of it again, batch by batch, epoch by epoch.

    Args:
        parameters: to begin with; they are left as they are.
        x, y: the examples, `(examples, inputs)` and `(examples, outputs)`.
        loss: a key of `LOSSES`.
        learning_rate: alpha, the length of a step for a gradient of 1.
        epochs: how often each example is seen.
        batch_size: the number of examples in a step; 32 as in Keras.
        seed: of the order, which is drawn anew in each epoch.

    Returns:
        The trained parameters, and the mean loss of each epoch.

    Raises:
        ValueError: if x and y differ in length or are empty, or a batch has no example.
    """
    x, y = np.asarray(x, "float64"), np.asarray(y, "float64")
    if len(x) != len(y) or not len(x):
        raise ValueError(f"A target for each input is expected: {len(x)} inputs, {len(y)} targets.")
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; at least 1 is expected.")
    order, history = np.random.default_rng(seed), []
    for _ in range(epochs):
        rows, total = order.permutation(len(x)), 0.0
        for batch in np.split(rows, range(batch_size, len(rows), batch_size)):
            value, gradient = loss_and_gradient(parameters, x[batch], y[batch], loss)
            parameters = gradient_descent(parameters, gradient, learning_rate)
            total += value * len(batch)
        history.append(total / len(x))
    return parameters, history


def finite_differences(
    parameters: Parameters, x: Array, y: Array, loss: str, step: float = 1e-6
) -> Parameters:
    """dJ/dtheta by central differences, (J(theta + h) - J(theta - h)) / 2h, one by one.

    Slow, and without calculus: the witness of `back_propagation`. With h = 1e-6 the error of the
    method (h^2) is near 1e-12, and that of rounding (1e-16 / h) near 1e-10.
    """
    # Copies in float64: a step of 1e-6 is lost in an integer, and the caller's stay as they are.
    parameters = from_weights([theta for pair in parameters for theta in pair])
    gradient = [(np.zeros_like(kernel), np.zeros_like(bias)) for kernel, bias in parameters]
    for pair, slopes in zip(parameters, gradient, strict=True):
        for theta, slope in zip(pair, slopes, strict=True):
            for index in np.ndindex(theta.shape):
                before = theta[index]
                theta[index] = before + step
                above, _ = loss_and_gradient(parameters, x, y, loss)
                theta[index] = before - step
                below, _ = loss_and_gradient(parameters, x, y, loss)
                theta[index] = before
                slope[index] = (above - below) / (2 * step)
    return gradient
