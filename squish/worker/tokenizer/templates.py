"""Chat templates: Jinja from strangers, in a sandbox, with the functions and the rules that transformers gives them."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import Template, TemplateError, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

_END = "CONTINUE_FINAL_MESSAGE_TAG "
_REASONING = ("reasoning_content", "thinking", "reasoning")

Conversation = list[dict[str, Any]]


class Templates:
    """The templates of one model, compiled when first used."""

    def __init__(self) -> None:
        self._environment: ImmutableSandboxedEnvironment | None = None
        self._compiled: dict[str, Template] = {}

    def render(
        self,
        template: str | dict[str, str] | None,
        conversation: Conversation,
        special_tokens: dict[str, str],
        *,
        tools: list[dict[str, Any]] | None = None,
        add_generation_prompt: bool = False,
        continue_final_message: bool = False,
        **kwargs: Any,
    ) -> str:
        """A conversation as text. Raises ValueError where it cannot be shown, and jinja2's TemplateError."""
        source = _chosen(template, tools)
        if not conversation:
            raise ValueError("Cannot apply chat template to an empty conversation. Provide at least one message.")
        messages = [_with_reasoning({k: v for k, v in each.items() if v is not None}) for each in conversation]
        final = _mark_end(messages[-1], source) if continue_final_message else None
        values = special_tokens | kwargs
        text = self._template(source).render(
            messages=messages, tools=tools, documents=None, add_generation_prompt=add_generation_prompt, **values
        )
        return text if final is None else _cut_at_end(text, final)

    def _template(self, source: str) -> Template:
        if source not in self._compiled:
            self._environment = self._environment or _environment()
            self._compiled[source] = self._environment.from_string(source)
        return self._compiled[source]


def _chosen(template: str | dict[str, str] | None, tools: list[dict[str, Any]] | None) -> str:
    if isinstance(template, dict):
        name = "tool_use" if tools is not None and "tool_use" in template else "default"
        template = template.get(name)
        if template is None:
            raise ValueError("This model has multiple chat templates, and none of them is the default.")
    if template is None:
        raise ValueError("This model has no chat template.")
    return template


def _with_reasoning(message: dict[str, Any]) -> dict[str, Any]:
    """Thoughts under each of the names that templates read."""
    thoughts = next((message[key] for key in _REASONING if message.get(key) is not None), None)
    return message if thoughts is None else {"thinking": thoughts, **message, "reasoning_content": thoughts}


def _mark_end(message: dict[str, Any], source: str) -> str:
    """Write a mark behind the text of the message that is to be continued; gives that text."""
    content = message.get("content")
    if content is None:
        raise ValueError('continue_final_message is set but the final message has no "content" to continue!')
    if "content" not in source:
        raise ValueError("continue_final_message is set, but the chat template shows no content.")
    if isinstance(content, str):
        message["content"] = content + _END
        return content
    parts = [dict(part) for part in content]
    part = next((part for part in reversed(parts) if "text" in part), None)
    if part is None:
        raise ValueError("continue_final_message is set, but the final message has no text.")
    text: str = part["text"]
    part["text"] = text + _END
    message["content"] = parts
    return text


def _cut_at_end(text: str, final: str) -> str:
    """What stands before the mark. Where the template trimmed the mark, it would have trimmed the text as well."""
    mark = _END.strip()
    if final.strip() not in text or mark not in text:
        raise ValueError(
            "continue_final_message is set but the final message does not appear in the chat after applying the "
            "chat template!"
        )
    at = text.rindex(mark)
    return text[:at] if text[at : at + len(_END)] == _END else text[:at].rstrip()


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals |= {
        "raise_exception": _raise_exception,
        "strftime_now": _strftime_now,
        "dict": _Dict(),
        "namespace": _Namespace,
    }
    return environment


class _Generation(Extension):
    """{% generation %}…{% endgeneration %} marks what the model wrote, for training. Here it only shows its body."""

    tags = {"generation"}  # noqa: RUF012 - jinja2 declares it so

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_show"), [], [], body).set_lineno(line)

    def _show(self, caller: Callable[[], str]) -> str:
        return caller()


class _Dict:
    """dict() without the attributes of the class, which lead out of the sandbox."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args, **kwargs)


class _Namespace(Namespace):
    """namespace() that takes no name with an underscore in front, for the same reason. A value may be called self."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        self, *rest = args
        values = dict(*rest, **kwargs)
        for name in values:
            _refuse_private(name)
        Namespace.__init__(self, values)

    def __setitem__(self, name: str, value: Any) -> None:
        _refuse_private(name)
        Namespace.__setitem__(self, name, value)


def _refuse_private(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"Chat templates cannot store underscore-prefixed attributes on a namespace: {name!r}")


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Plain JSON: jinja2's own filter escapes what HTML would misread."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> NoReturn:
    raise TemplateError(message)


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)
