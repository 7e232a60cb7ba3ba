"""Tools in `squish run`: which servers and tools a run may use, how a call is shown, and who is asked about it."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Sequence

from squish import console
from squish.chats.messages import CalledTool, ToolStep
from squish.errors import InvalidInput
from squish.generation import GenerationRequest
from squish.mcp import permissions
from squish.mcp.events import AnswerPart, Doing, Reaching, Report, Steps, ToolProblem
from squish.mcp.rounds import Rounds
from squish.mcp.tools import readable
from squish.sessions.backend import Backend

ALL = "all"
_SHOWN = 300  # characters of arguments
_RESULT_SHOWN = 120
_TERMINAL = "/dev/tty"

Ask = Callable[[str], Awaitable[str]]


class RunTools:
    """servers: by name. allowed: names of tools that need no question, or `all`. ask: None where nobody can be."""

    def __init__(self, backend: Backend, servers: Sequence[str], allowed: Sequence[str], ask: Ask | None) -> None:
        self._backend, self._servers, self._ask = backend, tuple(servers), ask
        self._allowed = set(allowed)
        self.steps: tuple[ToolStep, ...] = ()

    async def prepare(self) -> None:
        """Reach all servers, before a model is asked. Raises what that raises, and InvalidInput for a tool that is
        allowed and is not there."""
        tools = [tool for name in self._servers for tool in await self._backend.toolbox.tools(name, again=True)]
        known = {ALL} | {tool.id for tool in tools} | {tool.name for tool in tools}
        for name in sorted(self._allowed - known):
            names = ", ".join(tool.id for tool in tools)
            raise InvalidInput(f"No tool is named {name}.", hint=f"Available: {names or 'none'}.", param="--mcp-allow")

    async def rounds(self, request: GenerationRequest, report: Report) -> Rounds:
        """One answer that may use the tools; it is still to be run."""
        found = self._backend.store.manifest(request.model)
        able = await self._backend.calls_tools(request.model)
        sessions, self.steps = self._backend.sessions, ()
        return Rounds(
            sessions.generate, sessions.count, self._backend.toolbox, self._permit, report,
            able=able, context=request.sampling.context_in(found.context_length),
        )  # fmt: skip

    async def run(self, rounds: Rounds, request: GenerationRequest) -> None:
        """Raises what generating raises."""
        await rounds.run(request, self._servers)

    def show(self, part: AnswerPart) -> None:
        """Say on stderr what goes on beside the engine."""
        match part:
            case Reaching(servers=servers):
                console.dim(f"connecting to {', '.join(servers)}…")
            case ToolProblem(error=error):
                console.error(error)
            case Doing(call=call, progress="") if call.outcome == "running":
                console.dim(f"⚙ {call.tool} {_cut(call.arguments, _SHOWN)}")
            case Steps(steps=steps):
                before = {id(call) for step in self.steps for call in step.calls}
                self.steps = steps
                for call in (call for step in steps for call in step.calls if id(call) not in before):
                    if call.outcome in ("done", "failed", "refused"):
                        console.dim(f"  {call.outcome}: {_cut(call.result, _RESULT_SHOWN)}")

    async def _permit(self, call: CalledTool) -> bool:
        settings, server = self._backend.settings, self._backend.toolbox.find(call.tool.partition("/")[0])
        name = call.tool.partition("/")[2]
        if self._allowed & {ALL, call.tool, name} or permissions.is_allowed(settings.home, call.tool, server):
            return True
        if self._ask is None:
            console.note(f"Not allowed: {call.tool} {_cut(call.arguments, _SHOWN)} (--mcp-allow {call.tool} allows it)")
            return False
        arguments = "".join(f"\n  {line}" for line in readable(call.arguments).splitlines())
        console.note(f"The model wants to call {call.tool} with{arguments}")
        match (await self._ask("Allow it? y once, c in this conversation, a always, anything else not: ")).lower():
            case "y" | "yes":
                return True
            case "c":
                self._allowed.add(call.tool)
                return True
            case "a":
                permissions.allow(settings.home, call.tool, server)
                return True
        return False


def asker() -> Ask | None:
    """How somebody at this terminal is asked; None where nobody is."""
    if sys.stdin.isatty():
        return _ask_stdin
    try:
        os.close(os.open(_TERMINAL, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return None
    return _ask_terminal if sys.stderr.isatty() else None


async def _ask_stdin(question: str) -> str:
    return await _ask(sys.stdin.fileno(), question)


async def _ask_terminal(question: str) -> str:
    """What is piped in is the prompt: the answer comes from the terminal itself."""
    terminal = os.open(_TERMINAL, os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        return await _ask(terminal, question)
    finally:
        os.close(terminal)


async def _ask(descriptor: int, question: str) -> str:
    """A line from the terminal; the loop goes on meanwhile, and Ctrl-C ends the question."""
    sys.stderr.write(question)
    sys.stderr.flush()
    loop = asyncio.get_running_loop()
    line: asyncio.Future[bytes] = loop.create_future()

    def read() -> None:
        if not line.done():
            line.set_result(os.read(descriptor, 1024))

    loop.add_reader(descriptor, read)
    try:
        return (await line).decode(errors="replace").strip()
    finally:
        loop.remove_reader(descriptor)


def _cut(text: str, length: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= length else f"{line[: length - 1]}…"
