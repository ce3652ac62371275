"""tfbig generate --model=smollm2 --prompt="The capital of France is" --max_new_tokens=8

Writes what follows a prompt to stdout as it comes, and to stderr how fast it was and why it ended.
Of a translation model (T5, Marian) the prompt is what it reads. With --prompts_file all prompts are
continued at once, which takes hardly longer than one, and each is shown with its continuation.
"""

import json
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from absl import flags

from tfbig.cli import common, sampling
from tfbig.cli.main import UsageError

if TYPE_CHECKING:
    import keras

FLAGS = flags.FlagValues()
common.define_language_model(FLAGS)
flags.DEFINE_string("prompt", None, "the text to continue", flag_values=FLAGS)
flags.DEFINE_string("prompts_file", None, "a text file, a prompt a line", flag_values=FLAGS)
sampling.define(FLAGS, max_new_tokens=128)
flags.DEFINE_integer(
    "num_beams",
    1,
    "2 or more: beam search, without sampling and --stop",
    lower_bound=1,
    flag_values=FLAGS,
)
flags.DEFINE_bool("json", False, "print an object a line for each prompt", flag_values=FLAGS)


def run(values: flags.FlagValues) -> int:
    """Continues the prompts."""
    prompts = _prompts(values)
    if values.num_beams > 1:
        _check_beams(values)
    # Before the model is loaded: a wrong flag is told at once.
    arguments = sampling.arguments(values)
    model, tokenizer = common.with_tokenizer(values.model, values.dtype)
    forbidden = sampling.forbidden(values.model)
    arguments.update(forbidden)
    with common.mendable():
        arguments["start_ids"] = start_ids(model)
        if values.num_beams > 1:
            found, speed = _by_beams(model, tokenizer, prompts, values, forbidden)
        elif values.prompts_file or values.json:
            found, speed = _at_once(model, tokenizer, prompts, arguments)
        else:
            return _streamed(model, tokenizer, prompts[0], arguments)
    for one in found:
        if values.json:
            print(json.dumps(one._asdict()))
        else:
            print(f"{one.prompt}{one.text}\n" if values.prompts_file else one.text)
    _tell(speed, *sorted({one.reason for one in found}))
    return 0


def _tell(speed: str, *reasons: str) -> None:
    print(f"{speed}; ended by {', '.join(reasons)}", file=sys.stderr)


class Found(NamedTuple):
    """A prompt, what follows it, and why that ended."""

    prompt: str
    text: str
    reason: str


def _prompts(values: flags.FlagValues) -> list[str]:
    if (values.prompt is None) == (values.prompts_file is None):
        raise UsageError("one of --prompt and --prompts_file is expected")
    if values.prompt is not None:
        return [values.prompt]
    return common.lines(values.prompts_file)


def _check_beams(values: flags.FlagValues) -> None:
    names = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "stop", "seed")
    given = [f"--{name}" for name in names if values[name].value not in (None, [], 0)]
    if given:
        raise UsageError(f"--num_beams looks for the likeliest text, without {', '.join(given)}")


class Counted:
    """A tokenizer that counts the tokens which become text, and looks at the clock.

    Args:
        tokenizer: a `tfbig.interop.tokenizer.Tokenizer`.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.eos_ids = tokenizer.eos_ids
        self.encode = tokenizer.encode
        self._tokenizer = tokenizer
        self._began = time.perf_counter()
        # When each token came, in seconds.
        self._times: list[float] = []

    def stream(self) -> "_CountedStream":
        """As the tokenizer's."""
        return _CountedStream(self._tokenizer.stream(), self._times)

    def speed(self) -> str:
        """How many tokens there were, and how fast the first came and the others.

        >>> class NoTokens:
        ...     eos_ids, encode = frozenset(), list
        >>> Counted(NoTokens()).speed()
        '0 tokens'
        """
        count = len(self._times)
        if not count:
            return "0 tokens"
        first, last = self._times[0] - self._began, self._times[-1] - self._began
        said = f"{count} tokens in {last:.1f} s, the first after {first:.1f} s"
        # The prefill is compiled before the first token, the step before the second.
        steps = self._times[1:]
        if len(steps) < 2 or steps[-1] == steps[0]:
            return said
        return f"{said}; {(len(steps) - 1) / (steps[-1] - steps[0]):.1f} tokens/s once compiled"


class _CountedStream:
    """A stream of a `Counted`."""

    def __init__(self, stream: Any, times: list[float]) -> None:
        self._stream = stream
        self._times = times
        self.flush = stream.flush

    def push(self, number: int) -> str:
        """The text that became final with this id."""
        self._times.append(time.perf_counter())
        return self._stream.push(number)


def start_ids(model: "keras.Model") -> list[int] | None:
    """With which the decoder of a `Seq2Seq` begins, by its config.json; None for other networks.

    Raises:
        UsageError: if the model reads something else than text, or config.json does not say it.
    """
    from tfbig.interop.loading import config_of
    from tfbig.models import CausalLM, Seq2Seq, TokenFront

    if isinstance(model, CausalLM):
        return None
    if not isinstance(model, Seq2Seq):
        raise UsageError(
            f"text is written by a CausalLM or a Seq2Seq, and this model is a "
            f"{type(model).__name__}; tfbig embed makes vectors"
        )
    if not isinstance(model.front, TokenFront):
        raise UsageError(f"the model reads no text: its front is a {type(model.front).__name__}")
    config = config_of(model)
    start = config.get("decoder_start_token_id")
    # transformers falls back on it, too.
    start = config.get("bos_token_id") if start is None else start
    if not isinstance(start, int):
        raise UsageError("config.json has no decoder_start_token_id, with which the text begins")
    return [start]


def _streamed(model: "keras.Model", tokenizer: Any, prompt: str, arguments: dict[str, Any]) -> int:
    from tfbig import generation

    counted = Counted(tokenizer)
    reason = show(generation.stream(model, counted, prompt, **arguments))
    print()
    _tell(counted.speed(), reason)
    return 0


def show(pieces: Any) -> str:
    """Writes the pieces of `tfbig.generation.stream` as they come.

    Returns:
        Why the text ended.
    """
    while True:
        try:
            print(next(pieces), end="", flush=True)
        except StopIteration as end:
            return end.value


def _at_once(
    model: "keras.Model", tokenizer: Any, prompts: list[str], arguments: dict[str, Any]
) -> tuple[list[Found], str]:
    from tfbig import generation

    counted = Counted(tokenizer)
    texts = generation.generate_text(model, counted, prompts, **arguments)
    found = [Found(p, t.text, t.reason) for p, t in zip(prompts, texts, strict=True)]
    return found, counted.speed()


def _by_beams(
    model: "keras.Model",
    tokenizer: Any,
    prompts: list[str],
    values: flags.FlagValues,
    forbidden: dict[str, Any],
) -> tuple[list[Found], str]:
    from tfbig import generation

    began = time.perf_counter()
    all_beams = generation.beam_search(
        model,
        [tokenizer.encode(prompt) for prompt in prompts],
        num_beams=values.num_beams,
        max_new_tokens=values.max_new_tokens,
        eos_ids=sorted(tokenizer.eos_ids),
        start_ids=start_ids(model),
        **forbidden,
    )
    seconds = time.perf_counter() - began
    best = [beams[0] for beams in all_beams]
    found = [
        Found(p, text_after(tokenizer, b.ids), b.reason) for p, b in zip(prompts, best, strict=True)
    ]
    return found, f"{sum(len(beam.ids) for beam in best)} tokens in {seconds:.1f} s"


def text_after(tokenizer: Any, ids: Sequence[int]) -> str:
    """The text of ids that follow a prompt; `decode` would drop SentencePiece's leading space."""
    stream = tokenizer.stream()
    return "".join([*map(stream.push, ids), stream.flush()])
