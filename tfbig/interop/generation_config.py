"""What a checkpoint says of how its texts are written: generation_config.json.

Format: https://huggingface.co/docs/transformers/main_classes/text_generation. Read are the tokens
that are forbidden and those with which a decoder begins; an end token is the tokenizer's affair.
Left out: forbidden sequences of several tokens, tokens forced at later places (old Whisper files),
and settings of taste, such as temperature and the number of beams: the caller's own.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tfbig.interop.safetensors_files import read_json
from tfbig.interop.stored_tensor import CheckpointError, shown

_START = ("decoder_start_token_id", "forced_bos_token_id")


def generation_config(folder: str | Path) -> dict[str, list[int]]:
    """The arguments of `tfbig.generation` that a checkpoint asks for.

    Args:
        folder: a folder of Hugging Face. Of one without generation_config.json, config.json is
            read, where older ones say it.

    Returns:
        Those that it says, of

        - "forbidden": `suppress_tokens`, and `bad_words_ids` of one token;
        - "forbidden_first": `begin_suppress_tokens`;
        - "start_ids": `decoder_start_token_id` and `forced_bos_token_id`, for a `Seq2Seq`.

        So `generate(model, prompts, **generation_config(folder))`. Nothing where there is neither
        file, or no folder, such as for a `.gguf` file.

    Raises:
        CheckpointError: if a file is no JSON object, or a field is not as it should be.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "generation_config.json")
    ...     _ = path.write_text('{"bad_words_ids": [[7], [1, 2]], "decoder_start_token_id": 7}')
    ...     generation_config(folder)
    {'forbidden': [7], 'start_ids': [7]}
    """
    for name in ("generation_config.json", "config.json"):
        path = Path(folder, name)
        if path.is_file():
            return _arguments(read_json(path), path)
    return {}


def _arguments(fields: Mapping[str, Any], path: Path) -> dict[str, list[int]]:
    words = _given(fields, "bad_words_ids")
    if not isinstance(words, list):
        raise _wrong(path, "bad_words_ids", words, "a list of lists of token ids")
    each = [_ids(path, "bad_words_ids", word) for word in words]
    alone = [word[0] for word in each if len(word) == 1]
    suppressed, first = (
        _ids(path, name, _given(fields, name))
        for name in ("suppress_tokens", "begin_suppress_tokens")
    )
    start = [_ids(path, name, [fields[name]]) for name in _START if fields.get(name) is not None]
    if fields.get(_START[0]) is None:  # then the other is that of a CausalLM
        start = []
    found = {
        "forbidden": sorted({*alone, *suppressed}),
        "forbidden_first": sorted(set(first)),
        "start_ids": [ids[0] for ids in start],
    }
    return {name: ids for name, ids in found.items() if ids}


def _given(fields: Mapping[str, Any], name: str) -> Any:
    value = fields.get(name)
    return [] if value is None else value


def _ids(path: Path, name: str, value: Any) -> list[int]:
    if not isinstance(value, list) or not all(type(i) is int and 0 <= i < 2**31 for i in value):
        raise _wrong(path, name, value, "token ids")
    return value


def _wrong(path: Path, name: str, value: Any, expected: str) -> CheckpointError:
    return CheckpointError(
        f"{path}: {name} is {shown(value)}, and {expected} were expected. Take the file of the "
        f"checkpoint's source, or write null there."
    )
