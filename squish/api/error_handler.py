"""Every failure that has no header out yet, from routes, protocol and handlers alike, in the form of the dialect that
the client speaks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from sanic import HTTPResponse, Request
from sanic.exceptions import MethodNotAllowed, NotFound, SanicException
from sanic.handlers import ErrorHandler

from squish.api import dialects
from squish.api.errors import Refused, report, to_failure
from squish.api.serving.record import record_unroutable
from squish.api.transport.response import json_response
from squish.text import clean


class JsonErrors(ErrorHandler):
    """Sanic's error handler."""

    def response(self, request: Request, exception: BaseException) -> HTTPResponse:
        failure = to_failure(_in_words(request, exception))
        request_id = getattr(request.ctx, "id", "-")
        report(exception, request_id)
        request.ctx.failure = failure.code
        record_unroutable(request, failure.status)
        body = dialects.spoken(request.path, request.headers).error(failure, request_id)
        return json_response(body, failure.status, failure.headers)


def _in_words(request: Request, exception: BaseException) -> BaseException:
    """Sanic's refusals of a path or a method with what a client can do about them."""
    path = clean(request.path[:200]).strip() or "/"
    if isinstance(exception, NotFound):
        *others, last = dialects.spoken(request.path, request.headers).paths
        api = f"The API is at {', '.join(others)} and {last}; there are also /health, /ready and /metrics."
        return Refused(404, "unknown_url", f"There is nothing at {path}. {api}")
    if isinstance(exception, MethodNotAllowed):
        allowed = ", ".join(_methods(request))
        message = f"{request.method[:16]} is not a method of {path}; use {allowed}."
        return Refused(405, "method_not_allowed", message, {"allow": allowed})
    return exception


def _methods(request: Request) -> Iterator[str]:
    """What can be asked for at this path. Sanic itself names nothing where the path has a variable part."""
    for method in ("GET", "HEAD", "POST", "DELETE"):
        with suppress(SanicException):
            request.app.router.get(request.path, method, request.headers.getone("host", ""))
            yield method
