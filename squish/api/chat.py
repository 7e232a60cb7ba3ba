"""POST /v1/chat/completions."""

from __future__ import annotations

from sanic import HTTPResponse, Request

from squish.api import openai
from squish.api.answer import answer
from squish.api.connection import read_body
from squish.api.replies import ChatReply, Head


async def create_chat_completion(request: Request) -> HTTPResponse | None:
    asked = openai.decode(await read_body(request), openai.ChatRequest)
    head = Head.new("chatcmpl", asked.model, asked.rows_per_prompt, asked.wants_usage_chunk)
    return await answer(request, asked, openai.chat_to_generation(asked), ChatReply(head))
