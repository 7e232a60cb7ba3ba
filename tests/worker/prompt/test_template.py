"""Chat templates: what they are given, and that whatever they raise is said to whoever sent the request."""

from __future__ import annotations

from typing import Any

import pytest

from squish.errors import InvalidInput
from squish.generation import ChatPrompt, Message, Tool, ToolCall
from squish.worker.prompt import template
from tests.worker.byte_models import tokenizer

HI = Message("user", "Hi")
WALKS = """\
{%- for message in messages -%}{{ message.role }}:
{%- for call in message.tool_calls or [] -%}
{%- for name, value in call.function.arguments.items() %}{{ name }}={{ value }};{% endfor -%}
{%- endfor -%}{{ message.content.strip() }}|{%- endfor -%}
{%- if add_generation_prompt %}A:{% endif -%}
"""


def with_template(text: str) -> Any:
    used = tokenizer()
    used._tokenizer.chat_template = text
    return used


def called(arguments: str) -> ChatPrompt:
    call = Message("assistant", "", (ToolCall("1", "f", arguments),))
    return ChatPrompt((HI, call, Message("tool", "x", (), "1", "f")))


def test_arguments_are_an_object_for_the_template() -> None:
    assert template.render(with_template(WALKS), called('{"x": 1}')) == "user:Hi|assistant:x=1;|tool:x|A:"
    assert template.render(with_template(WALKS), called("")) == "user:Hi|assistant:|tool:x|A:"


@pytest.mark.parametrize("arguments", ['{"x": ', "[1]", "null", "5"])
def test_what_a_template_stumbles_over_is_the_fault_of_the_conversation(arguments: str) -> None:
    with pytest.raises(InvalidInput, match="refuses this conversation") as raised:
        template.render(with_template(WALKS), called(arguments))
    assert raised.value.param == "messages"


FAULTS = {
    "type": "{{ 1 + 'a' }}",
    "zero": "{{ 1 / 0 }}",
    "name": "{{ nothing.at.all }}",
    "range": "{% for i in range(10 ** 12) %}{% endfor %}",
    "recursion": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "raised": "{{ raise_exception('no such\x1b[2J thing') }}",
}


@pytest.mark.parametrize("kind", FAULTS)
def test_every_fault_of_a_template_is_said_of_the_conversation_or_of_the_template(kind: str) -> None:
    only_then = "{% if messages[0].content == 'boom' %}" + FAULTS[kind] + "{% endif %}fine"
    with pytest.raises(InvalidInput, match="refuses this conversation") as raised:
        template.render(with_template(only_then), ChatPrompt((Message("user", "boom"),)))
    assert raised.value.param == "messages"
    with pytest.raises(InvalidInput, match="fails for every conversation") as raised:
        template.render(with_template(FAULTS[kind]), ChatPrompt((HI,)))
    assert raised.value.param == "model"
    assert len(raised.value.message) < 400


def test_a_template_that_cannot_be_read_is_named() -> None:
    with pytest.raises(InvalidInput, match="fails for every conversation"):
        template.render(with_template("{% if %}"), ChatPrompt((HI,)))


def test_a_tool_without_a_description_or_properties_is_shown() -> None:
    each = "{% for name in tool.function.parameters.properties.items() %}{% endfor %}"
    shows = "{% for tool in tools %}" + each + "{{ tool.function.name }}{% endfor %}"
    tool = Tool("f", parameters='{"type":"object","properties":{}}')
    assert template.render(with_template(shows), ChatPrompt((HI,), tools=(tool,))) == "f"


def test_what_an_assistant_thought_is_given_to_the_template() -> None:
    shows = "{% for m in messages %}{{ m.reasoning_content or '-' }}{% endfor %}"
    prompt = ChatPrompt((HI, Message("assistant", "x", reasoning="Hm."), HI))
    assert template.render(with_template(shows), prompt) == "-Hm.-"


@pytest.mark.parametrize(
    ("text", "off"),
    [
        ("U{% if add_generation_prompt %}A:{% endif %}", "UA:<think>\n\n</think>\n\n"),
        ("U{% if add_generation_prompt %}A:<think>\n{% endif %}", "UA:<think>\n\n</think>\n\n"),
        ("UA:{% if not enable_thinking %}<think></think>{% endif %}", "UA:<think></think>"),
        ("U{% if not enable_thinking %}/no_think{% endif %}A:", "U/no_thinkA:"),
        ("U{% if thinking is defined and not thinking %}</think>{% else %}<think>{% endif %}", "U</think>"),
    ],
)
def test_thinking_can_be_switched_off_whatever_the_template_knows(text: str, off: str) -> None:
    used = with_template(text)
    assert template.render(used, ChatPrompt((HI,), thinking=False)) == off
    assert template.render(used, ChatPrompt((HI,), thinking=True)) != off


def test_how_much_to_think_reaches_templates_that_know_degrees() -> None:
    degrees = with_template("U{% if reasoning_effort %}[{{ reasoning_effort }}]{% endif %}A:</think>")
    for effort in ("low", "medium", "high"):
        assert template.render(degrees, ChatPrompt((HI,), thinking=True, effort=effort)) == f"U[{effort}]A:</think>"
    assert template.render(degrees, ChatPrompt((HI,), thinking=False)) == "U[none]A:</think>"
    assert template.render(degrees, ChatPrompt((HI,))) == "UA:</think>"


def test_a_model_that_always_thinks_is_not_switched_off_in_silence() -> None:
    always = with_template("U{{ reasoning_effort or 'medium' }}{# <|channel|>analysis #}")
    with pytest.raises(InvalidInput, match="always thinks") as raised:
        template.render(always, ChatPrompt((HI,), thinking=False))
    assert raised.value.param == "reasoning_effort"
    assert template.render(always, ChatPrompt((HI,), thinking=False, effort="low")).startswith("Ulow")


STRICT = """\
{%- for message in messages -%}
{%- if message.role == 'system' and not loop.first %}{{ raise_exception('one system message') }}{% endif -%}
{{ message.role }}:{{ message.content }}|{%- endfor -%}"""
HOISTING = """\
{%- for message in messages if message.role == 'system' -%}{{ message.content }}|{%- endfor -%}
{%- for message in messages if message.role != 'system' -%}{{ message.role }}:{{ message.content }}|{%- endfor -%}"""
FORGETFUL = """\
{%- for message in messages -%}{%- if message.role != 'system' or loop.first -%}
{{ message.role }}:{{ message.content }}|{%- endif -%}{%- endfor -%}"""
WILLING = "{%- for message in messages -%}{{ message.role }}:{{ message.content }}|{%- endfor -%}"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (WILLING, "system:S|user:Hi|assistant:A|system:late|user:Hi|tool:x|system:later|"),
        (STRICT, "system:S|user:Hi|assistant:A|user:late\n\nHi|tool:x\n\nlater|"),
        (HOISTING, "S|user:Hi|assistant:A|user:late\n\nHi|tool:x\n\nlater|"),
        (FORGETFUL, "system:S|user:Hi|assistant:A|user:late\n\nHi|tool:x\n\nlater|"),
    ],
)
def test_what_a_system_says_later_stays_where_it_is_said(text: str, shown: str) -> None:
    system, late, later = Message("system", "S"), Message("system", "late"), Message("system", "later")
    messages = (system, HI, Message("assistant", "A"), late, HI, Message("tool", "x", (), "1", "f"), later)
    assert template.render(with_template(text), ChatPrompt(messages)) == shown
    cut = template.render(with_template(text), ChatPrompt(messages[:3]))
    assert shown.startswith(cut), "what follows changes nothing of what came before"


def test_a_conversation_of_many_late_systems_is_looked_at_in_one_pass() -> None:
    """A look from the beginning for each would take minutes, in a thread that others wait for."""
    many = tuple(message for _ in range(20_000) for message in (Message("system", "x"), Message("user", "y" * 40)))
    for text in (WILLING, FORGETFUL):
        shown = template.render(with_template(text), ChatPrompt((HI, *many)))
        assert shown.count("x") == 20_000
