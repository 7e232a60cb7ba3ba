"""POST /v1/chat/completions."""

from __future__ import annotations

from sanic import HTTPResponse, Request

from squish.api.answer import answer
from squish.api.openai import translate


async def create_chat_completion(request: Request) -> HTTPResponse | None:
    return await answer(request, translate.read_chat)
