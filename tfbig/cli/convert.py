"""tfbig convert --input=model.gguf --output=FOLDER

From a GGUF file, a Hugging Face folder or a .keras file to a Hugging Face folder that transformers
loads, or to a .keras file with its tokenizer's files beside it. A .keras file says less than a
config.json: back into a folder comes one of a model that is built as Llama is (language_model()).
"""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from tfbig.cli import common
from tfbig.cli.main import UsageError

if TYPE_CHECKING:
    import keras

FLAGS = flags.FlagValues()
flags.DEFINE_string(
    "input", None, "smollm2, minilm, a folder, a .gguf or a .keras file", flag_values=FLAGS
)
flags.DEFINE_string(
    "output", None, "a folder that is not there yet, or a name in .keras", flag_values=FLAGS
)
flags.DEFINE_enum(
    "dtype",
    None,
    ["float32", "bfloat16", "float16"],
    "of the weights; by default that of the input, and float32 where it is quantised",
    flag_values=FLAGS,
)
flags.DEFINE_float(
    "max_shard_gb", 5.0, "a larger file is written in several", lower_bound=1e-6, flag_values=FLAGS
)

_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def run(values: flags.FlagValues) -> int:
    """Reads the model and writes it."""
    if not values.input or not values.output:
        raise UsageError("--input and --output are expected")
    output = Path(values.output)
    to_keras = output.suffix == ".keras"
    _check_free(output, to_keras)
    from tfbig.interop.known import path_of

    path = path_of(values.input)
    dtype = values.dtype
    if path.suffix == ".keras":
        if dtype is not None and to_keras:
            raise UsageError("a .keras file keeps its dtype: --dtype is for a folder")
        model, tokenizer = common.loaded(str(path))
    else:
        with common.mendable():
            dtype = dtype or stored_dtype(path)
        model, tokenizer = common.loaded(str(path), dtype)
    with common.mendable():
        if to_keras:
            _write_keras(model, tokenizer, output)
        else:
            _write_folder(model, tokenizer, output, dtype, values.max_shard_gb)
    said = f"{model.count_params():,} weights"
    if tokenizer is None:
        print("tfbig: convert: the input has no tokenizer, and so has the output", file=sys.stderr)
    print(f"{type(model).__name__}, {said}, written to {output}")
    return 0


def _check_free(output: Path, to_keras: bool) -> None:
    """Before a model is read that would not be written."""
    if to_keras and not output.parent.is_dir():
        raise UsageError(f"there is no folder {output.parent}")
    for path in (output, output.parent / "tokenizer.json") if to_keras else (output,):
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise UsageError(
                f"{path} is there already, and nothing is overwritten: give another name"
            )


def stored_dtype(path: Path) -> str:
    """The Keras name of the one type that all tensors of a checkpoint have; else float32.

    Raises:
        CheckpointError: if it cannot be opened.
    """
    from tfbig.interop.checkpoint import open_checkpoint

    with open_checkpoint(path) as checkpoint:
        kinds = {checkpoint.dtype(name) for name in checkpoint.names()}
    return _DTYPES.get(kinds.pop(), "float32") if len(kinds) == 1 else "float32"


def _write_folder(
    model: "keras.Model", tokenizer: Any, output: Path, dtype: str | None, max_shard_gb: float
) -> None:
    from tfbig.interop.loading import save

    save(model, output, tokenizer, dtype=dtype, max_shard_bytes=int(max_shard_gb * 1e9))


def _write_keras(model: "keras.Model", tokenizer: Any, output: Path) -> None:
    temporary = output.with_name(f".{os.getpid()}_{output.name}")
    try:
        model.save(temporary)
        if tokenizer is not None:
            tokenizer.save(output.parent)
        os.replace(temporary, output)
    finally:
        temporary.unlink(missing_ok=True)
