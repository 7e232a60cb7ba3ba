"""One request of a batch and its answer, by the same readers and replies as over HTTP. It knows no files."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec

from squish.api.batches.lines import Item, Line, LineResponse, Tokens, line_id
from squish.api.dialect import Row, RowEvent
from squish.api.errors import Refused, to_failure
from squish.api.openai import embeddings, translate
from squish.api.openai.errors import error_body
from squish.api.telemetry.span import Attribute, RequestSpan
from squish.errors import EngineError, QueueFull, SquishError
from squish.generation import Finished
from squish.sessions.manager import SessionManager

if TYPE_CHECKING:
    from squish.api.metrics import Metrics
    from squish.api.telemetry.collector import Collector

_ATTEMPTS = 2
_READERS = {"/v1/chat/completions": translate.read_chat, "/v1/completions": translate.read_completion}

_FULL_FOR = 1.0  # seconds after which a full queue is asked again


class Answers:
    """Answers the requests of one batch. client: who asks, for whoever watches; account: the name of the key, if one.

    allow: raises for a model that the batch may not use. used: is told the model, and the tokens of an answer.
    collector: where its requests are traced to, each by itself, as those of the batch with this id. metrics: count its
    answers as those of other requests. Models are told and counted by their installed ids.
    """

    def __init__(
        self,
        sessions: SessionManager,
        client: str,
        account: str = "",
        allow: Callable[[str], None] = lambda model: None,
        used: Callable[[str, Tokens], None] = lambda model, tokens: None,
        collector: Collector | None = None,
        batch: str = "",
        metrics: Metrics | None = None,
    ) -> None:
        self._sessions = sessions
        self._who = {"client": client, "account": account, "background": True}
        self._allow, self._used = allow, used
        self._collector, self._batch, self._key, self._metrics = collector, batch, account, metrics
        self.tokens = Tokens()

    async def line(self, item: Item) -> Line:
        """The answer to a request, or what was wrong with it. A request whose worker died is tried once more."""
        for attempt in range(1, _ATTEMPTS + 1):
            with self._traced(item) as span:
                try:
                    return _line(item, 200, await self._patiently(item, span))
                except (SquishError, Refused) as error:
                    failure = to_failure(error)
                    if span:
                        span.failed(failure.code, broken=failure.status >= 500)
                    if not isinstance(error, EngineError) or attempt == _ATTEMPTS:
                        return _line(item, failure.status, error_body(failure))
        raise AssertionError("unreachable")

    @contextmanager
    def _traced(self, item: Item) -> Iterator[RequestSpan | None]:
        """One attempt at a request, as a trace has it."""
        if self._collector is None:
            yield None
            return
        named = {"squish.batch.id": self._batch, "squish.key.name": self._key}
        attributes: dict[str, Attribute] = {name: value for name, value in named.items() if value}
        span = RequestSpan(f"batch {item.url}", serves=False, attributes=attributes)
        try:
            yield span
        finally:
            span.finish()
            self._collector.send(span)

    async def _patiently(self, item: Item, span: RequestSpan | None) -> msgspec.Struct:
        while True:
            try:
                return await self._answer(item, span)
            except QueueFull:
                await asyncio.sleep(_FULL_FOR)

    async def _answer(self, item: Item, span: RequestSpan | None) -> msgspec.Struct:
        body = bytes(item.body)
        if item.url == "/v1/embeddings":
            return await self._embed(body, span)
        asked = _READERS[item.url](body)
        request = msgspec.structs.replace(asked.generation, **self._who)
        self._allow(request.model)
        if span:
            span.asks(request)
        async with self._sessions.generate(request, span) as generation:
            if span:
                span.answers(generation.request.model)
            rows = [Row() for _ in range(generation.rows)]
            async for event in generation:
                if isinstance(event, RowEvent):
                    rows[event.index].add(event)
                if isinstance(event, Finished) and self._metrics:
                    first_of_prompt = event.index % asked.rows_per_prompt == 0
                    self._metrics.finished(generation.request.model, event, first_of_prompt)
        if any(row.reason == "cancelled" for row in rows):
            raise EngineError("The request was cancelled before its answer was complete.")
        prompts = [row.usage for row in rows[:: asked.rows_per_prompt]]
        prompt, cached = sum(each.prompt_tokens for each in prompts), sum(each.cached_tokens for each in prompts)
        self._count(generation.request.model, Tokens(prompt, cached, sum(row.usage.completion_tokens for row in rows)))
        return asked.reply.whole(rows)

    async def _embed(self, body: bytes, span: RequestSpan | None) -> msgspec.Struct:
        request = embeddings.read(body)
        asked = msgspec.structs.replace(embeddings.to_embedding(request), **self._who)
        self._allow(asked.model)
        if span:
            span.asks(asked)
        found = await self._sessions.embed(asked, span)
        tokens = sum(found.tokens)
        if span:
            span.answers(found.model)
        if self._metrics:
            self._metrics.embedded(found.model, tokens)
        self._count(found.model, Tokens(prompt=tokens))
        return embeddings.answer(found, asked.model, as_text=request.encoding_format == "base64")

    def _count(self, model: str, tokens: Tokens) -> None:
        self.tokens.add(tokens)
        self._used(model, tokens)


def _line(item: Item, status: int, body: msgspec.Struct) -> Line:
    response = LineResponse(status, f"req_{secrets.token_hex(12)}", msgspec.Raw(msgspec.json.encode(body)))
    return Line(line_id(item), item.custom_id, response)
