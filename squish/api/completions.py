"""POST /v1/completions: one prompt, several, or Squish's `batch`."""

from __future__ import annotations

from sanic import HTTPResponse, Request

from squish.api.answer import answer
from squish.api.openai import translate


async def create_completion(request: Request) -> HTTPResponse | None:
    return await answer(request, translate.read_completion)
