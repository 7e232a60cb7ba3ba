"""POST /v1/completions: one prompt, several, or Squish's `batch`."""

from __future__ import annotations

from sanic import HTTPResponse, Request

from squish.api import openai
from squish.api.answer import answer
from squish.api.connection import read_body
from squish.api.replies import CompletionReply, Head


async def create_completion(request: Request) -> HTTPResponse | None:
    asked = openai.decode(await read_body(request), openai.CompletionRequest)
    head = Head.new("cmpl", asked.model, asked.rows_per_prompt, asked.wants_usage_chunk)
    return await answer(request, asked, openai.completion_to_generation(asked), CompletionReply(head))
