"""The request class of the application, and what an answer's way out looks like from a handler.

It knows no routes, no keys and no JSON.
"""

from __future__ import annotations

from typing import Any

from sanic import Request


class AnyRequest(Request[Any, Any]):
    """A request, or what could be read of one that is refused for its header.

    stands_in: it is of the second kind. head_ended: all of its header was there to be read.
    """

    stands_in = False
    head_ended = True


def peer(request: Request) -> str | None:
    """The address of the other end, also of one that sent no HTTP; a proxy's header is not believed."""
    found = request.transport.get_extra_info("peername") if request.transport else None
    return str(found[0]) if found else None


def own(request: Request) -> str | None:
    """The address of this end."""
    found = request.transport.get_extra_info("sockname") if request.transport else None
    return str(found[0]) if found else None


def answered_status(request: Request) -> int:
    """The status that was sent; 500 when none was, although the handler is over."""
    stream = request.stream  # it is false when the answer is complete
    return stream.response.status if stream is not None and stream.response is not None else 500
