"""tfbig embed --model=minilm --input=lines.txt --output=vectors.npy
tfbig embed --model=minilm --text="A happy person" --text="A happy dog" --similar

A vector for each text: of a sentence encoder by its own pooling, of any other model over text the
mean of the last hidden states (a language model was not trained for that: it is a start). With
--similar, the cosine between the first text and each of the others.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from tfbig.cli import common, predict
from tfbig.cli.main import UsageError

if TYPE_CHECKING:
    import keras

FLAGS = flags.FlagValues()
common.define_language_model(FLAGS)
flags.DEFINE_multi_string("text", [], "a text; may be given several times", flag_values=FLAGS)
flags.DEFINE_string("input", None, "a text file, a text a line", flag_values=FLAGS)
flags.DEFINE_string(
    "output",
    None,
    "where the vectors go, .npy or .csv, a row a text; printed by default",
    flag_values=FLAGS,
)
flags.DEFINE_bool(
    "similar", False, "print how similar the others are to the first text", flag_values=FLAGS
)
flags.DEFINE_integer("batch_size", 32, "texts at once", lower_bound=1, flag_values=FLAGS)
common.define_dtype(FLAGS)


def run(values: flags.FlagValues) -> int:
    """Makes the vectors and writes them, or compares them."""
    texts = _texts(values)
    output = Path(values.output) if values.output else None
    if output and output.suffix not in (".csv", ".npy"):
        raise UsageError(f"--output ends in .npy or .csv, and is {output}")
    model, tokenizer = common.with_tokenizer(values.model, values.dtype)
    from tfbig.interop.embedding import cosines, embed

    with common.mendable():
        vectors = embed(model, tokenizer, texts, values.batch_size)
        _tell_cut(model, tokenizer, texts)
    if output:
        predict.write(vectors, output)
        print(f"{len(vectors)} vectors of {vectors.shape[1]} numbers written to {output}")
    if values.similar:
        print(f"        {texts[0]}")
        for text, cosine in zip(texts[1:], cosines(vectors[0], vectors[1:]), strict=True):
            print(f"{cosine:7.4f} {text}")
    elif not output:
        for vector in vectors:
            print(",".join(f"{value:.6g}" for value in vector))
    return 0


def _texts(values: flags.FlagValues) -> list[str]:
    if bool(values.text) == bool(values.input):
        raise UsageError("one of --text (once or several times) and --input=FILE.txt is expected")
    texts = values.text or common.lines(values.input)
    if values.similar and len(texts) < 2:
        raise UsageError("--similar compares the first text with others, and there is one")
    return texts


def _tell_cut(model: "keras.Model", tokenizer: Any, texts: list[str]) -> None:
    from tfbig.models.positions import max_positions

    longest = max_positions(model.front)
    if longest is None:
        return
    cut = sum(len(ids) > longest for ids in tokenizer.encode_batch(texts))
    if cut:
        print(
            f"tfbig: embed: {cut} of {len(texts)} texts are longer than the {longest} tokens that "
            f"the model reads, and were cut",
            file=sys.stderr,
        )
