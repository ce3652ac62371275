"""What the defects ask a compiled model: its layers, its optimizers, its strategy."""

import keras
import tensorflow as tf
from keras.src.models.functional import Functional


def layers(model: keras.Model) -> list[keras.Layer]:
    """The model and all layers in it, at every depth.

    >>> import keras
    >>> [type(layer).__name__ for layer in layers(keras.Sequential([keras.layers.ReLU()]))]
    ['Sequential', 'ReLU']
    """
    return model._flatten_layers()


def has(model: keras.Model, *kinds: type) -> bool:
    """Whether one of the model's layers is of one of these classes."""
    return any(isinstance(layer, kinds) for layer in layers(model))


def embeds(model: keras.Model) -> bool:
    """Whether an embedding is trained whose gradient comes as rows.

    A tied head makes the gradient dense: Keras's `ReversibleEmbedding` is then no such embedding.
    """
    return any(
        isinstance(layer, keras.layers.Embedding)
        and layer.trainable
        and not (isinstance(layer, keras.layers.ReversibleEmbedding) and layer.tie_weights)
        for layer in layers(model)
    )


def optimizers(model: keras.Model) -> list[keras.optimizers.Optimizer]:
    """The optimizers that move the weights: those inside, where one wraps others."""
    return _inside(model.optimizer) if model.optimizer is not None else []


def clips(model: keras.Model) -> bool:
    """Whether an optimizer clips gradients."""
    return any(o.clipnorm or o.global_clipnorm or o.clipvalue for o in optimizers(model))


def replicas(model: keras.Model) -> int:
    """On how many replicas the model trains on this machine."""
    return model.distribute_strategy.num_replicas_in_sync


def mirrored(model: keras.Model) -> bool:
    """Whether the strategy updates mirrored variables by `merge_call`, be it with one replica."""
    kinds = (tf.distribute.MirroredStrategy, tf.distribute.MultiWorkerMirroredStrategy)
    return isinstance(model.distribute_strategy, kinds)


def operations(model: keras.Model) -> list[keras.Operation]:
    """The operations of functional models, at every depth: layers, and functions of tensors."""
    graphs = (layer for layer in layers(model) if isinstance(layer, Functional))
    return [operation for graph in graphs for operation in graph._operations]


def outputs(model: keras.Model) -> int | None:
    """How many outputs the model has; None where that shows at the first batch only."""
    if isinstance(model, keras.Sequential):
        return 1
    return len(model.outputs) if isinstance(model, Functional) else None


def rematerialized(model: keras.Model) -> list[keras.Layer]:
    """The layers that `keras.RematScope` runs a second time on the way back.

    What the function `keras.remat` wraps inside a `call` cannot be seen from outside.
    """
    return [
        layer
        for layer in layers(model)
        if (scope := layer._remat_mode)
        and (
            scope.mode in ("full", "larger_than")
            or (scope.mode == "list_of_layers" and layer.name in scope.layer_names)
        )
    ]


def draws(layer: keras.Layer) -> bool:
    """Whether the layer, or one inside it, draws random numbers."""
    return any(inner._seed_generators for inner in layer._flatten_layers())


def normalizes(layer: keras.Layer) -> bool:
    """Whether the layer is, or holds, a batch normalization."""
    return any(
        isinstance(inner, keras.layers.BatchNormalization) for inner in layer._flatten_layers()
    )


def distills_features(model: keras.Model) -> bool:
    """Whether the model is Keras's distiller and looks at a layer of its student."""
    return isinstance(model, keras.distillation.Distiller) and any(
        isinstance(loss, keras.distillation.FeatureDistillation) and loss.student_layer_name
        for loss in model.distillation_losses
    )


def _inside(optimizer: keras.optimizers.Optimizer) -> list[keras.optimizers.Optimizer]:
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return _inside(optimizer.inner_optimizer)
    if isinstance(optimizer, keras.optimizers.MultiOptimizer):
        return [each for inner in optimizer.optimizers for each in _inside(inner)]
    return [optimizer]
