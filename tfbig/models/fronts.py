"""What stands before a Transformer over images or sound: both become `(batch, time, dim)`."""

from typing import Any

import keras
from keras import ops

from tfbig.models.parts import Composite, clone, serialized


@keras.saving.register_keras_serializable("tfbig")
class PatchFront(Composite, keras.layers.Layer):
    """Square patches of an image as tokens, after one that stands for the whole (ViT, CLIP).

    Args:
        image_size: height and width of the images, in pixels; a multiple of `patch_size`.
        patch_size: of the patches.
        hidden_dim: of the vectors.
        channels: of the images.
        use_bias: of the projection of patches (CLIP has none).
        norm: a part for the sum, or None.
        dropout: of the sum.
        initializer: of all.

    Shapes:
        `(batch, height, width, channels)` in, `(batch, 1 + patches, hidden_dim)` out.

    >>> PatchFront(image_size=8, patch_size=4, hidden_dim=16)(ops.ones((2, 8, 8, 3))).shape
    TensorShape([2, 5, 16])
    """

    def __init__(
        self,
        image_size: int,
        patch_size: int,
        hidden_dim: int,
        channels: int = 3,
        use_bias: bool = True,
        norm: Any = None,
        dropout: float = 0.0,
        initializer: Any = "glorot_uniform",
        name: str = "front",
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, **kwargs)
        if image_size % patch_size:
            raise ValueError(
                f"image_size ({image_size}) is a multiple of patch_size ({patch_size}): "
                f"pad or resize the images."
            )
        self.image_size = image_size
        self.patch_size = patch_size
        self.hidden_dim = hidden_dim
        self.channels = channels
        self.use_bias = use_bias
        self.initializer = keras.initializers.get(initializer)
        self.patches = keras.layers.Conv2D(
            hidden_dim,
            patch_size,
            strides=patch_size,
            use_bias=use_bias,
            kernel_initializer=clone(self.initializer),
            data_format="channels_last",
            name="patches",
            dtype=self.dtype_policy,
        )
        # Now and not in build(): an initializer draws its seed when it is made.
        self.starts = {name: clone(self.initializer) for name in ("whole", "positions")}
        self.norm = clone(norm, "norm")
        self.dropout = keras.layers.Dropout(dropout, dtype=self.dtype_policy)

    def build(self, *shapes: Any) -> None:
        self.patches.build((None, self.image_size, self.image_size, self.channels))
        count = (self.image_size // self.patch_size) ** 2
        self.whole = self.add_weight(
            name="whole", shape=(self.hidden_dim,), initializer=self.starts["whole"]
        )
        self.positions = self.add_weight(
            name="positions",
            shape=(1 + count, self.hidden_dim),
            initializer=self.starts["positions"],
        )
        if self.norm is not None:
            self.norm.build((None, None, self.hidden_dim))
        self.built = True

    def call(self, images: Any, training: Any = None) -> Any:
        patches = self.patches(images)
        patches = ops.reshape(patches, (-1, self.positions.shape[0] - 1, self.hidden_dim))
        whole = ops.broadcast_to(self.whole, (ops.shape(patches)[0], 1, self.hidden_dim))
        x = ops.concatenate([ops.cast(whole, patches.dtype), patches], axis=1) + self.positions
        if self.norm is not None:
            x = self.norm(x)
        return self.dropout(x, training=training)

    def compute_output_shape(self, input_shape: Any, *args: Any, **kwargs: Any) -> Any:
        return (input_shape[0], 1 + (self.image_size // self.patch_size) ** 2, self.hidden_dim)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "image_size": self.image_size,
            "patch_size": self.patch_size,
            "hidden_dim": self.hidden_dim,
            "channels": self.channels,
            "use_bias": self.use_bias,
            "dropout": self.dropout.rate,
            **serialized(norm=self.norm, initializer=self.initializer),
        }


@keras.saving.register_keras_serializable("tfbig")
class SoundFront(Composite, keras.layers.Layer):
    """Two convolutions over the frames of a spectrogram, the second of stride 2 (Whisper).

    Args:
        channels: of the spectrogram (mel bands).
        hidden_dim: of the vectors.
        positions: a part that gives a vector for each position, or None.
        dropout: of the sum.
        initializer: of the kernels.

    Shapes:
        `(batch, frames, channels)` in, `(batch, frames / 2, hidden_dim)` out.

    >>> SoundFront(80, 16)(ops.ones((2, 10, 80))).shape
    TensorShape([2, 5, 16])
    """

    def __init__(
        self,
        channels: int,
        hidden_dim: int,
        positions: Any = None,
        dropout: float = 0.0,
        initializer: Any = "glorot_uniform",
        name: str = "front",
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, **kwargs)
        self.channels = channels
        self.hidden_dim = hidden_dim
        self.initializer = keras.initializers.get(initializer)
        self.positions = clone(positions, "positions")
        self.first = self._convolution("first", 1)
        self.second = self._convolution("second", 2)
        self.dropout = keras.layers.Dropout(dropout, dtype=self.dtype_policy)

    def _convolution(self, name: str, strides: int) -> keras.layers.Conv1D:
        return keras.layers.Conv1D(
            self.hidden_dim,
            3,
            strides=strides,
            activation="gelu",
            kernel_initializer=clone(self.initializer),
            data_format="channels_last",
            name=name,
            dtype=self.dtype_policy,
        )

    def build(self, *shapes: Any) -> None:
        self.first.build((None, None, self.channels))
        self.second.build((None, None, self.hidden_dim))
        if self.positions is not None:
            self.positions.build((None, None))
        self.built = True

    def call(self, frames: Any, training: Any = None) -> Any:
        # Padded by one on each side, whatever the stride: "same" would pad a stride of 2 on the
        # right only, PyTorch's weights were trained with both.
        around = [[0, 0], [1, 1], [0, 0]]
        x = self.second(ops.pad(self.first(ops.pad(frames, around)), around))
        if self.positions is not None:
            x = x + self.positions(ops.arange(ops.shape(x)[1])[None])
        return self.dropout(x, training=training)

    def compute_output_shape(self, input_shape: Any, *args: Any, **kwargs: Any) -> Any:
        frames = None if input_shape[1] is None else (input_shape[1] + 1) // 2
        return (input_shape[0], frames, self.hidden_dim)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "channels": self.channels,
            "hidden_dim": self.hidden_dim,
            "dropout": self.dropout.rate,
            **serialized(positions=self.positions, initializer=self.initializer),
        }
