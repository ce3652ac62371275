"""Chat templates: the text of Transformers, and no way to hurt whoever runs one."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tfbig.interop import chat
from tfbig.interop.chat import ChatLimits, ChatTemplateError, Conversation, render, render_all

USER = [{"role": "user", "content": " Hi <b> 'you' \n"}]
TALK = [
    *USER,
    {"role": "assistant", "content": "Héllo 😀"},
    {"role": "user", "content": "More?"},
]
SYSTEM = [{"role": "system", "content": "Be brief."}, *TALK]
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}

# Written for these tests, in the style of the models' own.
TEMPLATES = {
    "Llama 3": """{% set loop_messages = messages %}
{% for message in loop_messages %}
    {% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>

' + message['content'] | trim + '<|eot_id|>' %}
    {% if loop.index0 == 0 %}
        {% set content = bos_token + content %}
    {% endif %}
    {{- content }}
{%- endfor %}
{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>

' }}{% endif %}""",
    "Qwen 2": """{% for message in messages %}
{% if loop.first and messages[0]['role'] != 'system' %}
{{ '<|im_start|>system
You are a helpful assistant.<|im_end|>
' }}
{% endif %}
{{ '<|im_start|>' + message['role'] + '
' + message['content'] + '<|im_end|>' + '
' }}
{% endfor %}
{% if tools %}{{ tools | tojson(indent=2) }}{% endif %}
{% if add_generation_prompt %}{{ '<|im_start|>assistant
' }}{% endif %}""",
    "Gemma": """{{ bos_token }}{% if messages[0]['role'] == 'system' %}
{{ raise_exception('System role not supported') }}{% endif %}
{% for message in messages %}
{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
{{ raise_exception('Roles must alternate') }}{% endif %}
{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}
{{ '<start_of_turn>' + role + '
' + message['content'] | trim + '<end_of_turn>
' }}{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model
'}}{% endif %}""",
    "Mistral": """{%- set ns = namespace(system='') -%}
{%- for message in messages -%}
  {%- if message.role == 'system' -%}
    {%- set ns.system = message.content + '\\n\\n' -%}
    {%- continue -%}
  {%- endif -%}
  {%- if message.role == 'user' -%}
    {{- bos_token if loop.first }}[INST] {{ ns.system }}{{ message.content }} [/INST]
    {%- set ns.system = '' -%}
  {%- elif message.role == 'assistant' -%}
    {{- ' ' + message.content + eos_token }}
  {%- endif -%}
{%- endfor -%}""",
    "Phi 3": """{% macro turn(role, content) %}<|{{ role }}|>
{{ content }}<|end|>
{% endmacro %}
{% for message in messages %}{{ turn(message.role, message.content) }}{% endfor %}
{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% else %}{{ eos_token }}{% endif %}""",
    "many means": """{%- for m in messages[::-1] %}
{% generation %}{{ m | tojson }}{% endgeneration %}
{{ m.content.split()[0] | upper }} {{ loop.index }}{% if loop.index > 2 %}{% break %}{% endif %}
{%- endfor %}{{ dict(a=1) | items | list }}{{ '%s' | format('é') }}{{ strftime_now('%Y') }}
{{- messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | join('|') }}""",
}


@pytest.fixture(scope="module")
def transformers_renders():
    transformers = pytest.importorskip("transformers", reason="it is the oracle")
    import tokenizers

    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<s>": 0, "</s>": 1}))
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, **TOKENS)

    def rendered(template, messages, prompt, **variables):
        return theirs.apply_chat_template(
            messages,
            chat_template=template,
            tokenize=False,
            add_generation_prompt=prompt,
            **variables,
        )

    return rendered


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_text_is_that_of_transformers(name, transformers_renders):
    template = TEMPLATES[name]
    talks = [USER, TALK, [{**TALK[0], "name": None}]] + ([SYSTEM] if name != "Gemma" else [])
    conversations = [Conversation(talk, prompt) for talk in talks for prompt in (True, False)]
    texts = render_all(template, conversations, TOKENS)
    for one, text in zip(conversations, texts):
        assert text == transformers_renders(template, one.messages, one.add_generation_prompt)
    assert any("Hi <b> 'you'" in text for text in texts)  # nothing is escaped for HTML


def test_what_else_the_caller_gives_is_seen(transformers_renders):
    tools = [{"name": "add", "parameters": {"a": "é", "b": 1.5}}]
    template = TEMPLATES["Qwen 2"]
    text = render(template, USER, variables={**TOKENS, "tools": tools})
    tool_schema = transformers_renders(template, USER, True, tools=tools)
    assert text == tool_schema and '"a": "é"' in text


def test_a_template_may_refuse_its_messages():
    with pytest.raises(ChatTemplateError, match="failed: TemplateError: System role not supported"):
        render(TEMPLATES["Gemma"], SYSTEM)
    with pytest.raises(ChatTemplateError, match=r"\(conversation 1 of 2\): .* must alternate"):
        render_all(TEMPLATES["Gemma"], [Conversation(USER), Conversation(TALK[1:])], TOKENS)


LOOP = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
GROW = (
    "{% set n = namespace(x='a' * 99) %}"
    "{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}"
)
# What a template tries, and what is said: which limit it met, or why it failed.
HOSTILE = {
    LOOP: "seconds=",
    GROW + "{{ n.x }}": "(seconds|memory_bytes)=",
    "{{ 'a' * 10**9 }}": "memory_bytes=",
    "{{ '%1000000000d' % 1 }}": "memory_bytes=",
    "{{ '{:1000000000}'.format(1) }}": "memory_bytes=",
    "{{ (['a' * 1000] * 10**7) | join }}": "(seconds|memory_bytes)=",
    "{{ ('a' * 99999) | replace('a', 'b' * 99999) }}": "memory_bytes=",
    "{{ 9 ** (9 ** 9) }}": "seconds=",
    "{{ 'a' * 10**7 }}": "output_chars=",
    "{% for i in range(99999) %}{{ 'a' * 999 }}{% endfor %}": "output_chars=",
    "{% for i in range(10**9) %}{% endfor %}": "Range too big",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}": "RecursionError",
    "{{" + "(" * 9999 + ")" * 9999 + "}}": "RecursionError|process ended",
    "{{ ''.__class__.__mro__ }}": "SecurityError: access to attribute '__class__'",
    "{{ cycler.__init__.__globals__ }}": "SecurityError",
    "{{ raise_exception.__globals__['os'] }}": "SecurityError",
    "{{ namespace.__init__.__globals__ }}": "SecurityError",
    "{{ messages.append(1) }}": "SecurityError",
    "{% include '/etc/passwd' %}": "no loader",
    "{% if %}": "TemplateSyntaxError",
    "{{ 1 + 'a' }}": "TypeError",
    "x" * 70_000: "template_chars=",
}


@pytest.mark.skipif(sys.platform == "win32", reason="has no limits of memory and processor time")
@pytest.mark.parametrize("template", HOSTILE, ids=lambda template: template[:40])
def test_a_hostile_template_ends_and_is_told(template):
    limits = ChatLimits(seconds=0.5)
    with pytest.raises(ChatTemplateError, match=HOSTILE[template]):
        render(template, USER, limits=limits)


@pytest.mark.skipif(sys.platform == "win32", reason="has no limit of processor time")
def test_a_loop_ends_in_its_time():
    before = os.times()
    started = time.monotonic()
    with pytest.raises(ChatTemplateError, match=r"give more: ChatLimits\(seconds=...\)"):
        render(LOOP, USER, limits=ChatLimits(seconds=0.5))
    after = os.times()
    used = after.children_user + after.children_system
    used -= before.children_user + before.children_system
    # Half a second, and what Python takes to start; the wall's clock may be that of a busy machine.
    assert 0.4 < used < 2 and time.monotonic() - started < 25


def test_a_limit_can_be_raised():
    template = "{{ 'a' * 5000000 }}"
    assert len(render(template, USER, limits=ChatLimits(output_chars=5_000_000))) == 5_000_000
    assert render(" " * 70_000, USER, limits=ChatLimits(template_chars=80_000)) == " " * 70_000


@pytest.mark.skipif(sys.platform == "win32", reason="has no such limits")
def test_the_process_could_open_nothing_if_the_sandbox_were_escaped(tmp_path):
    worker = Path(chat.__file__).with_name("chat_worker.py")
    attempt = (
        f"import runpy; give_up = runpy.run_path({str(worker)!r})['_give_up_rights']\n"
        "import socket; give_up(2**29)\n"
        "for attempt in (lambda: open('/etc/passwd'), lambda: open('new', 'w'), socket.socket):\n"
        "    try: attempt(); print('opened')\n"
        "    except OSError as error: print(error.errno)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", attempt], capture_output=True, text=True, cwd=tmp_path, timeout=60
    )
    assert ran.stdout.split() == ["24"] * 3, ran.stderr  # EMFILE


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        (["hi"], "A message is a dict such as .* one is 'hi'"),
        ([{"content": "hi"}], "A message is a dict"),
        ([{"role": "user", "content": object()}], "are plain JSON"),
    ],
)
def test_a_message_that_is_none_is_said(messages, message):
    with pytest.raises(ChatTemplateError, match=message):
        render("x", messages)


def test_a_missing_jinja2_is_answered_by_the_line_that_installs_it(monkeypatch):
    def without(*args, **kwargs):
        error = "ModuleNotFoundError: No module named 'jinja2'"
        return subprocess.CompletedProcess(args, 1, stdout="", stderr=error)

    monkeypatch.setattr(chat.subprocess, "run", without)
    with pytest.raises(ImportError, match=r'pip install "tfbig\[interop\]"'):
        render("x", USER)


def test_many_conversations_start_one_process(monkeypatch):
    starts = []
    run = subprocess.run
    monkeypatch.setattr(chat.subprocess, "run", lambda *a, **k: starts.append(a) or run(*a, **k))
    conversations = [Conversation([{"role": "user", "content": str(n)}]) for n in range(300)]
    texts = render_all("{{ messages[0].content }}", conversations)
    assert texts == [str(n) for n in range(300)] and len(starts) == 1
    assert render_all("x", []) == [] and len(starts) == 1
