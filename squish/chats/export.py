"""A conversation as a text for other programs and for people: Markdown, one JSON object, or JSON lines.

It turns values into text and writes no file.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, get_args

import msgspec

from squish.chats.messages import Attachment, CalledTool, Chat, Saved, as_sent, with_files
from squish.chats.tags import written
from squish.errors import InvalidInput
from squish.generation import Message

Format = Literal["md", "json", "jsonl"]
FORMATS: tuple[Format, ...] = get_args(Format)


def format_of(path: Path) -> Format:
    """The format that a file's name asks for. Raises InvalidInput."""
    found = next((each for each in FORMATS if path.suffix.lower() == f".{each}"), None)
    if found is None:
        raise InvalidInput(f"{path.name} does not say which format to write.", hint="End it in .md, .json or .jsonl.")
    return found


def file_name(chat: Chat) -> str:
    """A name for a chat's Markdown, from its title."""
    words = "".join(letter if letter.isalnum() else " " for letter in chat.title).split()
    return ("-".join(words)[:40].rstrip("-").lower() or f"chat-{chat.id}") + ".md"


def export(chat: Chat, branch: Sequence[Saved], form: Format) -> str:
    """The branch of a chat as text that ends with a line break.

    jsonl is one line, `{"messages": […]}`, as programs for fine-tuning read it.
    """
    match form:
        case "md":
            return _markdown(chat, branch)
        case "json":
            return json.dumps(_whole(chat, branch), indent=2, ensure_ascii=False) + "\n"
        case "jsonl":
            return json.dumps({"messages": _plain(chat, branch)}, ensure_ascii=False) + "\n"


def _markdown(chat: Chat, branch: Sequence[Saved]) -> str:
    facts = [chat.model, local_time(chat.created), *([written(chat.tags)] if chat.tags else [])]
    parts = [f"# {chat.title or 'Chat'}", f"*{' · '.join(facts)}*"]
    if chat.settings.system:
        parts += ["## System", chat.settings.system]
    for each in branch:
        parts.append(f"## {'You' if each.role == 'user' else each.model}")
        for step in each.steps:
            parts += [step.text] if step.text else []
            parts += [_called(call) for call in step.calls]
        parts.append(each.full_text or "*(nothing)*")
    return "\n\n".join(parts) + "\n"


def _called(call: CalledTool) -> str:
    """A call in Markdown, in a fence that none of its own lines closes."""
    return with_files(f"*called {call.tool or call.name}: {call.outcome}*", (
        Attachment("with", call.arguments), Attachment("result", call.result),
    ))  # fmt: skip


def about(chat: Chat) -> dict[str, object]:
    """A chat without its messages, as JSON tells of it everywhere."""
    return {
        "id": chat.id,
        "title": chat.title,
        "model": chat.model,
        "created": _time(chat.created),
        "updated": _time(chat.updated),
        "tags": list(chat.tags),
    }


def _whole(chat: Chat, branch: Sequence[Saved]) -> dict[str, object]:
    return {
        **about(chat),
        "system": chat.settings.system or None,
        "messages": [_detailed(each) for each in branch],
    }


def _detailed(message: Saved) -> dict[str, object]:
    detailed: dict[str, object] = {"role": message.role, "content": message.text, "created": _time(message.created)}
    if message.attachments:
        detailed["attachments"] = [{"name": each.name, "text": each.text} for each in message.attachments]
    if message.role == "assistant":
        figures = message.figures
        detailed |= {"model": message.model, "state": message.state, "finish_reason": figures.reason or None}
        detailed |= {"reasoning": message.reasoning} if message.reasoning else {}
        detailed |= {"steps": msgspec.to_builtins(message.steps)} if message.steps else {}
        detailed["usage"] = {
            "prompt_tokens": figures.prompt_tokens,
            "completion_tokens": figures.completion_tokens,
        }
    return detailed


def _plain(chat: Chat, branch: Sequence[Saved]) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    if chat.settings.system:
        found.append({"role": "system", "content": chat.settings.system})
    for each in branch:
        found += [openai_message(message) for message in as_sent(each.steps)]
        found.append({"role": each.role, "content": each.full_text})
    return found


def openai_message(message: Message) -> dict[str, object]:
    """A message in the shape of OpenAI's API, with the calls that it makes or answers."""
    shaped: dict[str, object] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        shaped["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        shaped["tool_call_id"] = message.tool_call_id
    return shaped


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def local_time(seconds: float) -> str:
    """A point in time as people here read it: `2026-01-31 14:05`."""
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M")
