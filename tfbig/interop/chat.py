"""Chat templates: the text that a chat model is given for a list of messages.

A template is a jinja2 program that comes with a model's files. It is run like any stranger's
program: in a process of its own, inside jinja2's sandbox, with limits of size, processor time,
memory and output (`tfbig.interop.chat_worker`). Whatever passes a limit ends with a
`ChatTemplateError` that names it. What the template sees is plain JSON: the messages, the special
tokens, `add_generation_prompt`, and what else the caller gives (`tools`, `enable_thinking`).

The text is that of Transformers' `apply_chat_template`, also in this: a message's key whose value
is None is left out. Left out: documents, and templates that are picked by name.
"""

import json
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Message = Mapping[str, Any]

_MISSING = 'Chat templates need jinja2: pip install "tfbig[interop]"'


class ChatTemplateError(ValueError):
    """A chat template that is wrong, refuses its messages, or passes a limit."""


@dataclass(frozen=True)
class ChatLimits:
    """What a template may use.

    Args:
        template_chars: its own length; the longest in use have some 20 000 characters.
        output_chars: the text of one conversation.
        seconds: of processor time for one conversation; an honest template takes milliseconds.
        memory_bytes: of the process that runs it; Python and jinja2 take 50 MB of it. Not kept by
            macOS and Windows.

    >>> ChatLimits(seconds=5).seconds
    5
    """

    template_chars: int = 64_000
    output_chars: int = 4_000_000
    seconds: float = 1.0
    memory_bytes: int = 512 * 2**20


@dataclass(frozen=True)
class Conversation:
    """Messages to render, and whether the text ends where the model is to answer.

    Args:
        messages: dicts with a `role` and usually a `content`, oldest first.
        add_generation_prompt: to end with the opening of the assistant's next turn.

    >>> Conversation([{"role": "user", "content": "Hi"}], add_generation_prompt=True).messages
    [{'role': 'user', 'content': 'Hi'}]
    """

    messages: Sequence[Message]
    add_generation_prompt: bool = False


def render(
    template: str,
    messages: Sequence[Message],
    add_generation_prompt: bool = True,
    variables: Mapping[str, Any] | None = None,
    limits: ChatLimits = ChatLimits(),
) -> str:
    """The text of one conversation.

    Args:
        template: the program, in jinja2.
        messages: see `Conversation`.
        add_generation_prompt: see `Conversation`; on, because most often the model is to answer.
        variables: what else the template may read: `bos_token`, `eos_token`, `tools`. Plain JSON.
        limits: what it may use.

    Raises:
        ChatTemplateError: if a message is no message, the template is wrong or refuses the
            messages, or it passes a limit.
        ImportError: if there is no jinja2.

    >>> render("{% for m in messages %}[{{ m.role }}] {{ m.content }}{% endfor %}",
    ...        [{"role": "user", "content": "Hi"}])
    '[user] Hi'
    """
    conversation = Conversation(messages, add_generation_prompt)
    return render_all(template, [conversation], variables, limits)[0]


def render_all(
    template: str,
    conversations: Sequence[Conversation],
    variables: Mapping[str, Any] | None = None,
    limits: ChatLimits = ChatLimits(),
) -> list[str]:
    """The text of each conversation, in one process: to start one costs a tenth of a second.

    Args:
        template: as in `render`.
        conversations: what to render.
        variables: as in `render`, for all of them.
        limits: for each of them.

    Raises:
        ChatTemplateError: as in `render`; it says which conversation it was.
        ImportError: if there is no jinja2.

    >>> hello = Conversation([{"role": "user", "content": "Hi"}])
    >>> render_all("{{ messages[0].content }}{{ eos_token }}", [hello, hello], {"eos_token": "$"})
    ['Hi$', 'Hi$']
    """
    if len(template) > limits.template_chars:
        raise ChatTemplateError(
            f"The chat template has {len(template)} characters, and {limits.template_chars} are "
            f"allowed: if it is to be trusted, give ChatLimits(template_chars=...)."
        )
    if not conversations:
        return []
    given = {
        "template": template,
        "conversations": [_given_to_template(c, variables or {}) for c in conversations],
        "output_chars": limits.output_chars,
        "seconds": limits.seconds,
        "memory_bytes": limits.memory_bytes,
    }
    try:
        request = json.dumps(given)
    except (TypeError, ValueError, RecursionError) as error:
        raise ChatTemplateError(
            f"Messages and variables of a chat template are plain JSON (strings, numbers, lists, "
            f"dicts), and these are not: {error}."
        ) from error
    answers, code, said = _run(request, limits.seconds * len(conversations))
    failed = next((answer for answer in answers if "text" not in answer), None)
    if failed is None and len(answers) < len(conversations):
        failed = _sudden_end(code, said)
    if failed is not None:
        done = sum("text" in answer for answer in answers)
        raise ChatTemplateError(_explain(failed, done, len(conversations)))
    return [answer["text"] for answer in answers]


def _given_to_template(conversation: Conversation, variables: Mapping[str, Any]) -> dict[str, Any]:
    messages = []
    for message in conversation.messages:
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise ChatTemplateError(
                f"A message is a dict such as {{'role': 'user', 'content': 'Hi'}}, and one is "
                f"{message!r:.200}."
            )
        messages.append({key: value for key, value in message.items() if value is not None})
    return {
        **variables,
        "messages": messages,
        "add_generation_prompt": conversation.add_generation_prompt,
    }


def _run(request: str, seconds: float) -> tuple[list[dict[str, str]], int, str]:
    """Runs the worker; its answers, its exit code and what it said on stderr."""
    worker = Path(__file__).with_name("chat_worker.py")
    # -P: the worker's own folder is no place to import from. The wall's clock is only the last
    # resort, where the system keeps no processor time; else a busy machine would stop the honest.
    wall = seconds + (2 if sys.platform == "win32" else 20 + 10 * seconds)
    try:
        ended = subprocess.run(
            [sys.executable, "-P", str(worker)],
            input=request,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=wall,
        )
    except subprocess.TimeoutExpired:
        return [], -1, "timed out"
    if "No module named 'jinja2'" in ended.stderr:
        raise ImportError(_MISSING)
    answers = [json.loads(line) for line in ended.stdout.splitlines() if line.endswith("}")]
    return answers, ended.returncode, ended.stderr


def _sudden_end(code: int, said: str) -> dict[str, str]:
    if said == "timed out" or (sys.platform != "win32" and code == -signal.SIGPROF):
        return {"limit": "seconds", "error": "the time ran out"}
    if "MemoryError" in said or "cannot allocate" in said.lower():
        return {"limit": "memory_bytes", "error": "the memory ran out"}
    last = said.strip().splitlines()[-1:] or ["nothing said"]
    return {"limit": "", "error": f"its process ended with code {code}: {last[0][:500]}"}


def _explain(failed: dict[str, str], done: int, count: int) -> str:
    which = f" (conversation {done} of {count})" if count > 1 else ""
    if failed["limit"] == "jinja2":
        return f"jinja2 {failed['error']} can be escaped from: pip install 'jinja2>=3.1.6'."
    if failed["limit"]:
        return (
            f"The chat template was stopped: {failed['error']}{which}. If it is to be trusted, "
            f"give more: ChatLimits({failed['limit']}=...)."
        )
    return f"The chat template failed{which}: {failed['error']}"
