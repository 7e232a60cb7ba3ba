"""What happens in an answer that calls tools, besides what the engine says. Values only, light to import."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from squish.chats.messages import CalledTool, ToolStep
from squish.errors import SquishError
from squish.generation import GenerationEvent, Tool


class Reaching(msgspec.Struct, frozen=True):
    """Servers are being reached, before anything is asked."""

    servers: tuple[str, ...]


class Offered(msgspec.Struct, frozen=True):
    """The tools that the model learns of, as they are part of its prompt."""

    tools: tuple[Tool, ...]


class ToolProblem(msgspec.Struct, frozen=True):
    """Tools of a server, or all, cannot be used; the answer goes on without them."""

    error: SquishError


class Steps(msgspec.Struct, frozen=True):
    """The steps as they are now: another one, or a call of the last one stands differently."""

    steps: tuple[ToolStep, ...]


class Doing(msgspec.Struct, frozen=True):
    """What goes on beside the engine: a call that somebody is asked about, or that runs. progress: as it reports."""

    call: CalledTool
    progress: str = ""


class AnswerStopped(msgspec.Struct, frozen=True):
    """The answer ended between two generations because somebody wanted it to."""


ToolEvent = Reaching | Offered | ToolProblem | Steps | Doing | AnswerStopped
AnswerPart = GenerationEvent | ToolEvent
Report = Callable[[AnswerPart], None]
Permit = Callable[[CalledTool], Awaitable[bool]]
"""Whether a call may be made; it may ask somebody."""
