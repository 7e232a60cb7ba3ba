"""llama-server of llama.cpp: it has its model in memory, and tells its context and its tokens."""

from __future__ import annotations

from dataclasses import replace

import msgspec

from squish.errors import RemoteError
from squish.generation import ChatPrompt, Prompt
from squish.models.manifest import Manifest
from squish.remote import fields
from squish.remote.connection import ServerConnection
from squish.remote.plain_server import PlainServer
from squish.remote.server import ServerState

_PROBE = 5.0  # seconds


class LlamaSettings(msgspec.Struct, frozen=True):
    n_ctx: int = 0


class LlamaProps(msgspec.Struct, frozen=True):
    default_generation_settings: LlamaSettings = LlamaSettings()
    chat_template_caps: dict[str, bool] = {}
    build_info: str = ""


class AppliedTemplate(msgspec.Struct, frozen=True):
    prompt: str


class Tokenized(msgspec.Struct, frozen=True):
    tokens: list[int]


class LlamaServer(PlainServer):
    """Beside what every server has: the context, and counts."""

    def __init__(self, connection: ServerConnection, root: str, props: LlamaProps) -> None:
        build = connection.shown(props.build_info)[:20]
        super().__init__(connection, root, f"llama-server {build}".rstrip(), fields.LLAMA)
        self._context = max(props.default_generation_settings.n_ctx, 0)
        self._tools = props.chat_template_caps.get("supports_tools", True)

    async def models(self) -> list[Manifest]:
        found = await super().models()
        return [replace(each, context_length=self._context or each.context_length) for each in found]

    async def state(self) -> ServerState:
        found = await super().state()
        return ServerState(tuple(replace(each, state="ready", pinned=True) for each in found.models))

    async def count(self, model: str, prompts: tuple[Prompt, ...]) -> tuple[int, ...] | None:
        counts = []
        try:
            for prompt in prompts:
                if not isinstance(prompt, ChatPrompt):
                    return None
                counts.append(await self._count(model, prompt))
        except RemoteError:  # one that is too old, or asks for another key
            return None
        return tuple(counts)

    async def _count(self, model: str, prompt: ChatPrompt) -> int:
        messages = [fields.message(each) for each in prompt.messages]
        asked = {"model": model, "messages": messages}
        applied = await self._connection.post("/apply-template", asked, AppliedTemplate)
        content = {"model": model, "content": applied.prompt, "parse_special": True}
        return len((await self._connection.post("/tokenize", content, Tokenized)).tokens)

    async def calls_tools(self, model: str) -> bool:
        return self._tools


async def props_of(connection: ServerConnection) -> LlamaProps:
    """What it says of itself; nothing where it does not."""
    try:
        return await connection.get("/props", LlamaProps, seconds=_PROBE)
    except RemoteError:
        return LlamaProps()
