"""An engine that calls a tool once, where it knows one, and then says that it works: what counts is the protocol."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any, cast

from squish.config.settings import Settings
from squish.generation import ChatPrompt, Tool, ToolCallDelta
from squish.runtime import Runtime
from squish.sessions.answer import Generation
from squish.sessions.manager import SessionManager
from tests.api.scripted import Script, ScriptedSessions, serving
from tests.conftest import EMBEDDING_MODEL, MODEL, home_settings, install_real, link_with_tools, minilm
from tests.models.test_store import install

SAID = "It works."
RAN = "squish-was-here"
FILES = {"config.json": b'{"model_type": "llama"}', "chat_template.jinja": b"<tool_call>{{ tool_call.name }}"}
"""A model that cannot be loaded; by its template it calls tools."""
SHELLS: dict[str, dict[str, Any]] = {
    "exec_command": {"cmd": f"echo {RAN}"},  # Codex
    "Bash": {"command": f"echo {RAN}", "description": "Say it"},  # Claude Code, cn
    "bash": {"command": f"echo {RAN}", "description": "Say it"},  # opencode
    "run_shell_command": {"command": f"echo {RAN}", "is_background": False},  # Qwen Code
}
"""Tools that run a command, and what they are to be given."""


class CallingSessions(ScriptedSessions):
    """called: the names of the tools that were called. seen: what the tools gave."""

    def __init__(self) -> None:
        super().__init__()
        self.called: list[str] = []
        self.seen: list[str] = []

    async def close(self) -> None:
        """Nothing runs."""

    def admit(self, generation: Generation) -> None:
        script, prompt = Script(generation), generation.request.prompts[0]
        script.accept()
        if isinstance(prompt, ChatPrompt):
            results = [message.content for message in prompt.messages if message.role == "tool"]
            self.seen += results
            tool = self._tool(prompt, bool(results))
            if tool is not None:
                self.called.append(tool.name)
                arguments = SHELLS.get(tool.name) or example(json.loads(tool.parameters))
                script.tell(
                    ToolCallDelta(0, 0, "call_1", tool.name, ""),
                    ToolCallDelta(0, 0, "call_1", None, json.dumps(arguments)),
                )
                script.finish(reason="tool_calls")
                return
        script.say(SAID)
        script.finish()

    def _tool(self, prompt: ChatPrompt, answered: bool) -> Tool | None:
        """A shell, or the only tool; where one is required, any that was not called yet."""
        fresh = [tool for tool in prompt.tools if tool.name not in self.called]
        if prompt.tool_choice == "none" or not fresh or (answered and prompt.tool_choice == "auto"):
            return None
        shells = [tool for tool in fresh if tool.name in SHELLS]
        one = fresh if len(prompt.tools) == 1 or prompt.tool_choice == "required" else []
        return next(iter(shells or one), None)


def example(schema: dict[str, Any]) -> Any:
    """A value that fits a simple schema."""
    match schema.get("type"):
        case "object":
            return {name: example(each) for name, each in schema.get("properties", {}).items()}
        case "integer" | "number":
            return 7
        case "boolean":
            return True
        case "array":
            return []
        case _:
            return "Berlin"


@contextmanager
def server(home: Path, *, real: bool = False) -> Iterator[tuple[str, CallingSessions]]:
    """Its address, and its engine, in a thread of its own. real: MODEL answers, and EMBEDDING_MODEL is there too."""
    ready, over, found, sessions = Event(), Event(), list[str](), CallingSessions()
    if real:
        install_real(home / "real", (MODEL, None))
        link_with_tools(home / "real", home)
        install_real(home, (str(minilm()), EMBEDDING_MODEL))

    async def run() -> None:
        runtime = Runtime(home_settings(home) if real else Settings(home=home, cache_dir=home / "models"))
        if not real:
            install(runtime.store, MODEL, FILES)
            runtime.sessions = cast(SessionManager, sessions)
        async with runtime, serving(runtime) as address:
            found.append(address.url)
            ready.set()
            await asyncio.to_thread(over.wait)

    thread = Thread(target=asyncio.run, args=(run(),))
    thread.start()
    ready.wait()
    try:
        yield found[0], sessions
    finally:
        over.set()
        thread.join()
