"""What a certificate calls both networks on: a batch for each kind, with padding, and a loss."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from tfbig.interop.family import Config
from tfbig.models import (
    CausalLM,
    Classifier,
    DualEncoder,
    MaskedLM,
    Seq2Seq,
    SoundFront,
    TextEncoder,
    VisionTransformer,
)
from tfbig.models.masks import positions_of

TIME, SOURCE = 11, 7


@dataclasses.dataclass(frozen=True)
class Example:
    """One batch for both.

    Attributes:
        ours: what our network is called on.
        theirs: the keyword arguments of the PyTorch module.
        valid: `(batch, time)`, 1 where the output counts; None: everywhere.
        labels: `(batch, time)` of token ids, for a cross-entropy; None: the loss is a square.
        source_valid: as `valid`, for what the encoder of a `Seq2Seq` reads.
    """

    ours: Any
    theirs: dict[str, Any]
    valid: np.ndarray | None = None
    labels: np.ndarray | None = None
    source_valid: np.ndarray | None = None

    def valid_state(self, state: np.ndarray) -> np.ndarray | None:
        """The mask that fits hidden states `(batch, time, dim)`."""
        masks = (self.valid, self.source_valid)
        fit = (mask for mask in masks if mask is not None and mask.shape == state.shape[:2])
        return next(fit, None)


def example(model: keras.Model, config: Config) -> Example:
    """A batch of two rows, the second of them shorter, for the kind of network.

    Raises:
        TypeError: if the network is none that a family builds.
    """
    rng = np.random.default_rng(0)
    if isinstance(model, Seq2Seq):
        return _seq2seq(model, config, rng)
    if isinstance(model, VisionTransformer):
        images = _images(model, rng)
        return Example(images, {"pixel_values": _torch(_channels_first(images))})
    if isinstance(model, DualEncoder):
        texts, theirs = _texts(model.text, rng)
        _end_with(texts, (config.get("text_config") or {}).get("eos_token_id", 49407))
        theirs["input_ids"] = _torch(texts["token_ids"])
        images = _images(model.vision, rng)
        theirs["pixel_values"] = _torch(_channels_first(images))
        return Example({**texts, "images": images}, theirs)
    if isinstance(model, CausalLM | MaskedLM | TextEncoder):
        texts, theirs = _texts(model, rng)
        labels = None
        if not isinstance(model, TextEncoder):
            labels = rng.integers(0, model.front.vocabulary_size, texts["token_ids"].shape)
        return Example(texts, theirs, texts["padding_mask"], labels)
    raise TypeError(
        f"A {type(model).__name__} is no network that a family of tfbig.interop builds."
    )


def left_padded(model: keras.Model, config: Config) -> Example | None:
    """A batch padded on the left, with the positions that generation gives; None if not causal."""
    if not isinstance(model, CausalLM):
        return None
    texts, theirs = _texts(model, np.random.default_rng(1))
    mask = texts["padding_mask"][:, ::-1].copy()
    positions = keras.ops.convert_to_numpy(positions_of(mask))
    return Example(
        {**texts, "padding_mask": mask, "positions": positions},
        {**theirs, "attention_mask": _torch(mask), "position_ids": _torch(positions)},
        mask,
    )


def _ids(rng: np.random.Generator, vocabulary: int, time: int, pad: int | None) -> np.ndarray:
    """Token ids without padding's, whose vector gets no gradient from PyTorch's embedding."""
    ids = rng.integers(4, vocabulary, (2, time)).astype("int32")
    return np.where(ids == pad, 3, ids).astype("int32")


def _texts(model: Any, rng: np.random.Generator) -> tuple[dict[str, Any], dict[str, Any]]:
    # Neither 0, 1 nor 2: they are padding and ends in one family or another.
    ids = rng.integers(3, model.front.vocabulary_size, (2, TIME)).astype("int32")
    mask = np.ones((2, TIME), "int32")
    # Both rows on one side of a long rotary's border in small configs: ours asks each row by
    # itself which side it is on, transformers the whole batch.
    mask[1, TIME - 2 :] = 0
    ours = {"token_ids": ids, "padding_mask": mask}
    return ours, {"input_ids": _torch(ids), "attention_mask": _torch(mask)}


def _end_with(texts: dict[str, Any], end: int) -> None:
    """Closes each text as CLIP does: with the end token or, if that is 2, with the highest id."""
    ids, mask = texts["token_ids"], texts["padding_mask"]
    highest = int(ids.max())
    ids[ids == (highest if end == 2 else end)] = 3
    ids[np.arange(len(ids)), mask.sum(1) - 1] = highest if end == 2 else end


def _seq2seq(model: Seq2Seq, config: Config, rng: np.random.Generator) -> Example:
    vocabulary, pad = model.target_front.vocabulary_size, config.get("pad_token_id")
    ids = _ids(rng, vocabulary, TIME, pad)
    labels = rng.integers(3, vocabulary, (2, TIME))
    valid = np.ones((2, TIME), "int32")
    ours: dict[str, Any] = {"decoder_token_ids": ids}
    theirs: dict[str, Any] = {"decoder_input_ids": _torch(ids)}
    if isinstance(model.front, SoundFront):
        frames = 2 * model.front.positions.max_length
        features = rng.normal(size=(2, frames, model.front.channels)).astype("float32")
        ours["encoder_features"] = features
        theirs["input_features"] = _torch(features.transpose(0, 2, 1))
        return Example(ours, theirs, valid, labels)
    source = _ids(rng, vocabulary, SOURCE, pad)
    source_valid = np.ones((2, SOURCE), "int32")
    source_valid[1, SOURCE - 2 :] = 0
    ours |= {"encoder_token_ids": source, "encoder_padding_mask": source_valid}
    theirs |= {"input_ids": _torch(source), "attention_mask": _torch(source_valid)}
    return Example(ours, theirs, valid, labels, source_valid)


def _images(model: Any, rng: np.random.Generator) -> np.ndarray:
    size, channels = model.front.image_size, model.front.channels
    return rng.normal(size=(2, size, size, channels)).astype("float32")


def _channels_first(images: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))


def _torch(array: np.ndarray) -> Any:
    import torch

    tensor = torch.from_numpy(np.ascontiguousarray(array))
    return tensor if tensor.is_floating_point() else tensor.long()


def output(model: keras.Model, ours: Any) -> Any:
    """What is compared: logits; or the states, where the module of PyTorch has no head.

    A sentence encoder's module gives states, too: pooling and length 1 are not in transformers.
    """
    states = isinstance(model, TextEncoder | VisionTransformer)
    if states and not isinstance(model.head, Classifier):
        return model.encode(ours)[0]
    return model(ours, training=False)


def torch_output(result: Any) -> Any:
    """The same of a module's result."""
    for name in ("logits", "logits_per_text", "last_hidden_state"):
        if name in result:
            return result[name]
    raise ValueError(f"The module's result has {list(result)}, and no logits or states.")


def torch_layers(module: Any) -> Sequence[Any]:
    """A module's layers in the order of ours: the lists of modules that are its stacks."""
    import torch

    stacks = [m for m in module.modules() if isinstance(m, torch.nn.ModuleList) and len(m)]
    inner = {id(m) for stack in stacks for layer in stack for m in layer.modules()}
    return [layer for stack in stacks if id(stack) not in inner for layer in stack]


def gradients(model: keras.Model, example: Example) -> list[np.ndarray]:
    """The gradient of the loss for each trainable variable."""
    import tensorflow as tf

    with tf.GradientTape() as tape:
        loss = _loss(output(model, example.ours), example)
    found = tape.gradient(loss, model.trainable_variables)
    return [
        np.zeros(tuple(v.shape), "float32") if g is None else tf.convert_to_tensor(g).numpy()
        for g, v in zip(found, model.trainable_variables, strict=True)
    ]


def _loss(result: Any, example: Example) -> Any:
    """The mean cross-entropy over what counts, or the mean square distance to fixed numbers."""
    ops = keras.ops
    if example.labels is None:
        return _mean(ops.sum(ops.square(result - _target(result)), axis=-1), example.valid)
    loss = keras.losses.sparse_categorical_crossentropy(example.labels, result, from_logits=True)
    return _mean(loss, example.valid)


def _mean(loss: Any, valid: np.ndarray | None) -> Any:
    if valid is None or len(loss.shape) < 2:
        return keras.ops.mean(loss)
    return keras.ops.sum(loss * valid.astype("float32")) / valid.sum()


def torch_loss(result: Any, example: Example) -> Any:
    """The same of a module's output."""
    import torch

    valid: Any = None
    if example.valid is not None and result.ndim == 3:
        valid = _torch(example.valid).float()
    if example.labels is None:
        loss = (result - torch.from_numpy(_target(result))).square().sum(-1)
    else:
        flat = result.reshape(-1, result.shape[-1]), _torch(example.labels).reshape(-1)
        loss = torch.nn.functional.cross_entropy(*flat, reduction="none").reshape(valid.shape)
    return loss.mean() if valid is None else (loss * valid).sum() / valid.sum()


def _target(result: Any) -> np.ndarray:
    return np.random.default_rng(2).normal(size=tuple(result.shape)).astype("float32")
