"""The response class of the application, and JSON in it."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from sanic import HTTPResponse


class Response(HTTPResponse):
    """A response without the empty Alt-Svc header that Sanic adds while its run-time code rewriting is off."""

    @property
    def processed_headers(self):  # type: ignore[no-untyped-def]  # the type is Sanic's
        self.headers.pop("alt-svc", None)
        return super().processed_headers


def json_response(value: msgspec.Struct, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(
        msgspec.json.encode(value), status=status, headers=dict(headers or {}), content_type="application/json"
    )
