"""The process in which a chat template runs: JSON lines in, JSON lines out, and nothing else.

`tfbig.interop.chat` starts this file by its path, so it imports neither tfbig nor TensorFlow and is
ready in a tenth of a second. A template is a stranger's program. The sandbox of jinja2 keeps it
from Python's objects, but it bounds neither time nor memory, and it has been escaped before. So the
process gives up, before it runs the template, what it does not need: it may open no file and no
socket, write no file, and use only so much memory and processor time; the operating system sees to
that.

The environment is that of Transformers (`apply_chat_template`): `trim_blocks`, `lstrip_blocks`,
loop controls, `raise_exception`, `strftime_now`, a `tojson` that does not escape for HTML, and
`{% generation %}`, which marks the answers and is passed through here.
"""

import datetime
import json
import signal
import sys
from collections.abc import Iterator
from typing import Any

import jinja2
import jinja2.debug  # by name: jinja2 imports it at the first error, when no file can be opened
import jinja2.ext
import jinja2.nodes
import jinja2.sandbox

_SAFE_JINJA = (3, 1, 6)  # the older ones have known ways out of the sandbox
# Has jinja2 load what it loads late, and the time zone's file, while files can still be opened.
_REHEARSAL = "{{ 'a' | wordwrap | pprint }}{{ lipsum(n=1) }}{{ strftime_now('%c') }}"


class _Generation(jinja2.ext.Extension):
    tags = {"generation"}

    def parse(self, parser: Any) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _to_json(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, **options)


def _strftime_now(form: str) -> str:
    return datetime.datetime.now().strftime(form)


def environment() -> jinja2.sandbox.ImmutableSandboxedEnvironment:
    """The jinja2 environment of a chat template, with the options of Transformers.

    >>> environment().from_string("{{ [1, 'é'] | tojson }}").render()
    '[1, "é"]'
    """
    made = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols]
    )
    made.filters["tojson"] = _to_json
    made.globals["raise_exception"] = _raise_exception
    made.globals["strftime_now"] = _strftime_now
    return made


def renderings(request: dict[str, Any]) -> Iterator[dict[str, str]]:
    """Renders each conversation of a request, and ends at the first that fails.

    Args:
        request: `template`, `conversations` (a list of what is given to the template) and
            `output_chars`.

    Yields:
        `{"text": ...}`, or `{"limit": ..., "error": ...}` and no more.

    >>> request = {"template": "{{ x * 3 }}", "conversations": [{"x": "ab"}], "output_chars": 9}
    >>> list(renderings(request))
    [{'text': 'ababab'}]
    """
    limit = request["output_chars"]
    try:
        _start_the_clock(request.get("seconds"))  # a constant expression runs while it is compiled
        template = environment().from_string(request["template"])
        for variables in request["conversations"]:
            _start_the_clock(request.get("seconds"))
            blocks, length = [], 0
            for block in template.generate(variables):
                length += len(block)
                if length > limit:
                    yield {"limit": "output_chars", "error": f"the text passed {limit} characters"}
                    return
                blocks.append(block)
            yield {"text": "".join(blocks)}
    except MemoryError:
        yield {"limit": "memory_bytes", "error": "the memory ran out"}
    except Exception as error:
        yield {"limit": "", "error": f"{type(error).__name__}: {error}"[:2000]}


def _start_the_clock(seconds: float | None) -> None:
    """Ends this process by SIGPROF once it has used so much processor time."""
    if seconds is not None and sys.platform != "win32":
        # Not the clock on the wall: a busy machine must not fail an honest template.
        signal.setitimer(signal.ITIMER_PROF, seconds)


def _give_up_rights(memory_bytes: int) -> None:
    if sys.platform == "win32":
        return  # has no such limits: there, only the parent's clock on the wall counts
    import resource

    environment().from_string(_REHEARSAL).render()
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    for right, most in (
        (resource.RLIMIT_NOFILE, 3),  # the three that are open: no other file, no socket
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(right, (most, most))


def main() -> None:
    """Reads one request from stdin and writes a line for each of its conversations."""
    version = tuple(int(part) for part in jinja2.__version__.split(".")[:3] if part.isdigit())
    text = sys.stdin.read()
    request = json.loads(text)
    # On top of the request, of which there are thousands of conversations at a time.
    _give_up_rights(request["memory_bytes"] + 8 * len(text))
    if version < _SAFE_JINJA:
        answers: Iterator[dict[str, str]] = iter([{"limit": "jinja2", "error": jinja2.__version__}])
    else:
        answers = renderings(request)
    for answer in answers:
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
