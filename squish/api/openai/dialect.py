"""OpenAI's dialect: which paths it has and what makes it one."""

from __future__ import annotations

from squish.api.dialect import Dialect
from squish.api.openai import translate
from squish.api.openai.errors import error_body

OPENAI = Dialect(
    name="openai",
    prefixes=("/v1",),
    paths=("/v1/chat/completions", "/v1/completions", "/v1/models"),
    answers={"/v1/chat/completions": translate.read_chat, "/v1/completions": translate.read_completion},
    error=error_body,
)
