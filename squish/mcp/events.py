"""What happens in an answer that calls tools, besides what the engine says. Values only, light to import."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from squish.chats.messages import CalledTool, ToolStep
from squish.errors import SquishError
from squish.generation import GenerationEvent, Tool


@dataclass(frozen=True, slots=True)
class Reaching:
    """Servers are being reached, before anything is asked."""

    servers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Offered:
    """The tools that the model learns of, as they are part of its prompt."""

    tools: tuple[Tool, ...]


@dataclass(frozen=True, slots=True)
class ToolProblem:
    """Tools of a server, or all, cannot be used; the answer goes on without them."""

    error: SquishError


@dataclass(frozen=True, slots=True)
class Steps:
    """The steps as they are now: another one, or a call of the last one stands differently."""

    steps: tuple[ToolStep, ...]


@dataclass(frozen=True, slots=True)
class Doing:
    """What goes on beside the engine: a call that somebody is asked about, or that runs. progress: as it reports."""

    call: CalledTool
    progress: str = ""


@dataclass(frozen=True, slots=True)
class AnswerStopped:
    """The answer ended between two generations because somebody wanted it to."""


ToolEvent = Reaching | Offered | ToolProblem | Steps | Doing | AnswerStopped
AnswerPart = GenerationEvent | ToolEvent
Report = Callable[[AnswerPart], None]
Permit = Callable[[CalledTool], Awaitable[bool]]
"""Whether a call may be made; it may ask somebody."""
