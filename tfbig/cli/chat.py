"""tfbig chat --model=smollm2

A conversation, by the model's own chat template. Ctrl-C stops an answer, /reset forgets what was
said, and /exit or Ctrl-D ends. Questions may come through a pipe, one a line; then only the answers
are written to stdout.
"""

import sys
from typing import TYPE_CHECKING, Any

from absl import flags

from tfbig.cli import common, generate, sampling
from tfbig.cli.main import UsageError

if TYPE_CHECKING:
    import keras

FLAGS = flags.FlagValues()
common.define_language_model(FLAGS)
flags.DEFINE_string(
    "system",
    None,
    "what the model is told before all; the template's own by default",
    flag_values=FLAGS,
)
sampling.define(FLAGS, max_new_tokens=512)
flags.DEFINE_integer(
    "context",
    None,
    "how many tokens a conversation may have, with the answer to come; by default what config.json "
    "says. Of a longer one the oldest questions and their answers are forgotten.",
    lower_bound=1,
    flag_values=FLAGS,
)

# Where neither the config nor --context says it.
_CONTEXT = 2048


def run(values: flags.FlagValues) -> int:
    """Talks until there are no more questions."""
    arguments = sampling.arguments(values)
    model, tokenizer = common.with_tokenizer(values.model, values.dtype)
    if tokenizer.chat_template is None:
        raise UsageError(
            f"{values.model} has no chat template: tfbig generate continues a text without "
            f"one; or put the template beside the weights as chat_template.jinja"
        )
    arguments.update(sampling.forbidden(values.model))
    with common.mendable():
        if generate.start_ids(model) is not None:
            raise UsageError("to talk takes a CausalLM, and this model translates")
        context = values.context or context_of(model)
    talk = Talk(tokenizer, values.system, context - values.max_new_tokens)
    if talk.longest < 1:
        raise UsageError(
            f"--max_new_tokens={values.max_new_tokens} leaves no room for a question in a context "
            f"of {context} tokens"
        )
    while (question := _question()) is not None:
        if question == "/exit":
            break
        if question == "/reset":
            talk.forget()
            _tell("all is forgotten")
        elif question:
            with common.mendable():
                _answer(model, talk, question, arguments)
    return 0


def context_of(model: "keras.Model") -> int:
    """How many tokens a network was made for, by its config.json."""
    from tfbig.interop.checkpoint import CheckpointError
    from tfbig.interop.loading import config_of

    try:
        config = config_of(model)
    except CheckpointError:  # of a .keras file of parts that no config.json tells
        return _CONTEXT
    return config.get("max_position_embeddings") or config.get("n_positions") or _CONTEXT


class Talk:
    """What was said, as messages.

    Args:
        tokenizer: with a chat template.
        system: what the model is told before all; None for nothing.
        longest: how many tokens a prompt may have.
    """

    def __init__(self, tokenizer: Any, system: str | None, longest: int) -> None:
        self.tokenizer = tokenizer
        self.longest = longest
        self._first = [] if system is None else [{"role": "system", "content": system}]
        self._said: list[dict[str, str]] = []

    def forget(self) -> None:
        """Forgets all but the system's message."""
        self._said = []

    def say(self, role: str, content: str) -> None:
        """One more message."""
        self._said.append({"role": role, "content": content})

    def prompt(self) -> tuple[list[int], int]:
        """What the model is given, without as many of the oldest exchanges as do not fit.

        Returns:
            The ids, and how many exchanges were forgotten.

        Raises:
            UsageError: if the last question alone does not fit.
        """
        forgotten = 0
        while True:
            text = self.tokenizer.apply_chat_template(self._first + self._said)
            ids = self.tokenizer.encode(text, add_special_tokens=False)
            if len(ids) <= self.longest:
                return ids, forgotten
            if len(self._said) < 3:
                raise UsageError(
                    f"the question makes a prompt of {len(ids)} tokens, and {self.longest} are "
                    f"left beside the answer: ask for less, or give a larger --context"
                )
            # A question and its answer.
            del self._said[:2]
            forgotten += 1


def _answer(model: "keras.Model", talk: Talk, question: str, arguments: dict[str, Any]) -> None:
    from tfbig import generation

    talk.say("user", question)
    ids, forgotten = talk.prompt()
    if forgotten:
        _tell(f"the conversation is too long: its oldest {forgotten} questions are forgotten")
    answer: list[str] = []
    try:
        for piece in generation.stream(model, talk.tokenizer, ids, **arguments):
            answer.append(piece)
            print(piece, end="", flush=True)
    except KeyboardInterrupt:
        _tell("stopped")
    print(flush=True)
    talk.say("assistant", "".join(answer))


def _question() -> str | None:
    """The next line; None at the end."""
    typed = sys.stdin.isatty()
    try:
        return input("> " if typed else "").strip()
    except EOFError:
        if typed:
            print()
        return None
    except KeyboardInterrupt:
        if not typed:
            raise
        _tell("/exit or Ctrl-D ends")
        return ""


def _tell(notice: str) -> None:
    print(f"\n[{notice}]", file=sys.stderr)
