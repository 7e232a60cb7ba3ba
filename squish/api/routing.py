"""Puts the routes of the dialects on the application: a request becomes a Call, and its outcome is sent."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar
from urllib.parse import unquote

import msgspec
from sanic import HTTPResponse, Request

from squish.api.dialect import Asked, Call, Dialect, Outcome, Pieces, Route, WithStatus
from squish.api.replies import stream
from squish.api.replies.answer import account, answer, asker
from squish.api.services import Services
from squish.api.transport.application import App
from squish.api.transport.connection import read_body
from squish.api.transport.response import Response, json_response

LARGE_BODY = 65_536
"""Bytes from which on a body is read in a thread, so that nobody else waits for it."""

_BODILESS = ("GET", "HEAD")

Value = TypeVar("Value")
Handler = Callable[..., Coroutine[Any, Any, HTTPResponse | None]]


def add_routes(app: App, dialect: Dialect) -> None:
    """Serve a dialect's answers and its other routes."""
    for path, reader in dialect.answers.items():
        _add(app, Route("POST", path, _reading(reader)))
    for route in dialect.routes:
        _add(app, route)


def _add(app: App, route: Route) -> None:
    name = re.sub(r"\W+", "_", f"{route.method}_{route.path}").strip("_")
    with_body = route.method not in _BODILESS
    app.add_route(_handler(route), route.path, methods=(route.method,), name=name, stream=with_body)


def _reading(reader: Callable[[bytes], Asked]) -> Callable[[Call], Coroutine[Any, Any, Outcome]]:
    async def handle(call: Call) -> Outcome:
        return await call.read(reader)

    return handle


def _handler(route: Route) -> Handler:
    async def handle(request: Request, **parts: str) -> HTTPResponse | None:
        call = _Call(request, parts)
        async with call.services.ending.may_end():
            outcome = await route.handle(call)
            match outcome:
                case Asked():
                    return await answer(request, outcome)
                case Pieces():
                    await stream.send_pieces(request, outcome)
                    return None
                case WithStatus():
                    return _with_status(outcome)
                case _:
                    return json_response(outcome)

    return handle


def _with_status(result: WithStatus) -> HTTPResponse:
    if isinstance(result.body, msgspec.Struct):
        return json_response(result.body, result.status)
    return Response(result.body, status=result.status, content_type="text/plain; charset=utf-8")


class _Call(Call):
    """A request as its route sees it."""

    def __init__(self, request: Request, parts: Mapping[str, str]) -> None:
        self._request = request
        self.services: Services = request.app.ctx.services
        self.client, self.account, self.key = asker(request), account(request), request.ctx.key
        self.span = request.ctx.span
        self.parts = {name: unquote(part) for name, part in parts.items()}

    @property
    def query(self) -> Mapping[str, str]:
        return {name: values[-1] for name, values in self._request.args.items()}

    @property
    def in_background(self) -> bool:
        return self.key is not None and self.key.background

    @property
    def owner(self) -> str | None:
        return self.key.name if self.key is not None else None

    def used(self, model: str, prompt: int) -> None:
        self.services.clients.used(self.key, model, requests=1, prompt=prompt)

    def asking(self, model: str, *, counted: bool = True) -> AbstractAsyncContextManager[None]:
        return self.services.asking(model, self.key, counted=counted)

    async def read(self, reader: Callable[[bytes], Value]) -> Value:
        """Large bodies take turns: threads beside each other would starve the loop together."""
        body = await read_body(self._request)
        if len(body) < LARGE_BODY:
            return reader(body)
        async with self.services.large_body:
            return await asyncio.to_thread(reader, body)

    def note(self, text: str) -> None:
        self._request.ctx.note = f" {text}"
