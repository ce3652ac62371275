"""What the files of `sentence-transformers` say beyond config.json: how a text becomes one vector.

modules.json lists the steps (https://sbert.net, "Creating Custom Models"): the network, the
pooling, whose own config.json says of which kind, and mostly a normalisation to unit length. Read
are the mean, the first and the last token. Left out: the other poolings and dense layers after them
(an error says so); `max_seq_length` (cut the ids) and `do_lower_case` of sentence_bert_config.json
(the tokenizer's files say it again); prompts.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tfbig.interop.safetensors_files import MAX_JSON_BYTES, json_object, read_json
from tfbig.interop.stored_tensor import CheckpointError, regular_file_size, shown

# Of the entry that a config gets; a config.json of a file cannot bring it along.
KEY = "sentence_transformers"
_MODULES = "modules.json"
_MODEL_TYPES = ("bert", "distilbert", "roberta", "xlm-roberta")
# What the flags of 1_Pooling/config.json begin with, in versions before 5.
_FLAG = "pooling_mode_"
_FLAGS = {"cls_token": "cls", "mean_tokens": "mean", "lasttoken": "lasttoken"}
_REMEDY = "To load the network alone, remove modules.json."


def configured(folder: str | Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """A config.json with what modules.json says, under the key "sentence_transformers".

    Args:
        folder: of the checkpoint; a file has no modules.json.
        config: of its config.json.

    Raises:
        CheckpointError: if modules.json or the pooling's config.json is damaged, or asks for what
            is not read.

    >>> configured("nowhere", {"model_type": "bert"})
    {'model_type': 'bert'}
    """
    plain = {name: value for name, value in config.items() if name != KEY}
    if not (Path(folder) / _MODULES).exists():
        return plain
    if config.get("model_type") not in _MODEL_TYPES:
        raise CheckpointError(
            f"{Path(folder) / _MODULES} makes one vector of a text, and that is read for "
            f"{', '.join(_MODEL_TYPES)}, not for {shown(config.get('model_type'))}. {_REMEDY}"
        )
    return {**plain, KEY: read(Path(folder))}


def read(folder: Path) -> dict[str, Any]:
    """The steps after the network.

    Returns:
        `{"pooling": "mean", "cls" or "lasttoken", "unit_length": True or False}`.

    Raises:
        CheckpointError: as in `configured`.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write(folder, {"pooling": "mean", "unit_length": True}, 384)
    ...     read(Path(folder))
    {'pooling': 'mean', 'unit_length': True}
    """
    modules = _modules(folder / _MODULES)
    kinds = [kind for kind, _ in modules]
    if kinds[:2] != ["Transformer", "Pooling"] or kinds[2:] not in ([], ["Normalize"]):
        raise CheckpointError(
            f"{folder / _MODULES} lists {shown(kinds)}, and Transformer, Pooling and perhaps "
            f"Normalize are read, in this order. {_REMEDY}"
        )
    if modules[0][1]:
        raise CheckpointError(
            f"{folder / _MODULES}: the network is in the folder {shown(modules[0][1])}: give the "
            f"path of that one."
        )
    return {"pooling": _pooling(folder, modules[1][1]), "unit_length": len(modules) > 2}


def _modules(path: Path) -> list[tuple[str, str]]:
    """The kind and the folder of each module."""
    size = regular_file_size(path)
    if size > MAX_JSON_BYTES:
        raise CheckpointError(f"{path} has {size} bytes, and {MAX_JSON_BYTES} are the limit.")
    # The reader wants an object at the top, and this file has a list.
    modules = json_object(b'{"modules": ' + path.read_bytes() + b"}", str(path))["modules"]
    found = []
    for module in modules if isinstance(modules, list) else [None]:
        fields = module if isinstance(module, dict) else {}
        kind, folder = fields.get("type"), fields.get("path")
        if not isinstance(kind, str) or not isinstance(folder, str):
            raise CheckpointError(
                f"{path} is to be a list of objects with a type and a path, and has "
                f"{shown(module)}. Download the file again."
            )
        # The class's name; where its module stands has changed between versions. It is compared
        # with those known, never imported.
        found.append((kind.rpartition(".")[2], folder))
    return found


def _pooling(folder: Path, name: str) -> str:
    # Nothing but a folder in this one.
    if not re.fullmatch(r"\w[\w.-]*", name, re.ASCII):
        raise CheckpointError(
            f"{folder / _MODULES}: the path of the pooling is {shown(name)}, and the name of a "
            f"folder beside it was expected, such as '1_Pooling'."
        )
    path = folder / name / "config.json"
    config = read_json(path)
    modes = config.get("pooling_mode")
    if modes is None:
        flags = [key.removeprefix(_FLAG) for key in config if key.startswith(_FLAG)]
        modes = [_FLAGS.get(flag, flag) for flag in flags if config[_FLAG + flag] is True]
    modes = [modes] if isinstance(modes, str) else modes
    if not isinstance(modes, list) or len(modes) != 1 or modes[0] not in _FLAGS.values():
        raise CheckpointError(
            f"{path}: the pooling is {shown(modes)}, and one of {sorted(_FLAGS.values())} is read. "
            f"{_REMEDY}"
        )
    return modes[0]


def parts(config: Mapping[str, Any]) -> tuple[Any, Any]:
    """The pooling and the head of a `TextEncoder`; both None where config.json stands alone.

    >>> pooling, head = parts({KEY: {"pooling": "cls", "unit_length": False}})
    >>> type(pooling).__name__, head
    ('FirstToken', None)
    """
    from tfbig.models import FirstToken, LastToken, MeanToken, UnitLength

    said = config.get(KEY)
    if said is None:
        return None, None
    pooling = {"cls": FirstToken, "mean": MeanToken, "lasttoken": LastToken}[said["pooling"]]
    return pooling(name="pooling"), UnitLength(name="head") if said["unit_length"] else None


def write(folder: str | Path, said: Mapping[str, Any], hidden_dim: int) -> None:
    """Writes modules.json and 1_Pooling/config.json beside a checkpoint.

    Args:
        folder: of the checkpoint.
        said: what `read` returned.
        hidden_dim: of the vectors.
    """
    folder = Path(folder)
    names = [("", "Transformer"), ("1_Pooling", "Pooling")]
    if said["unit_length"]:
        names.append(("2_Normalize", "Normalize"))
    pooling = {"word_embedding_dimension": hidden_dim}
    pooling.update({_FLAG + flag: said["pooling"] == mode for flag, mode in _FLAGS.items()})
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(names)
    ]
    for path, _ in names[1:]:
        (folder / path).mkdir(parents=True, exist_ok=True)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling, indent=2), "utf-8")
    # Last, by a rename: with it the folder is one of sentence-transformers.
    unfinished = folder / f".{_MODULES}.unfinished"
    unfinished.write_text(json.dumps(modules, indent=2), "utf-8")
    unfinished.replace(folder / _MODULES)
