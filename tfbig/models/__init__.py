"""Networks: plain subclassed Keras models, of `keras.layers` and `keras.ops` only."""

from tfbig.models.neural_network import NeuralNetwork

__all__ = ["NeuralNetwork"]
