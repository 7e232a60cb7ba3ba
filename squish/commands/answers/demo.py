"""`squish demo`: one real answer from a small real model, and what to type next."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from squish import console, figures
from squish.config.settings import Settings
from squish.download import resolver

if TYPE_CHECKING:
    from squish.runtime import Runtime

MODEL = "smollm2:135m"
_PROMPT = "What is the capital of Germany? Then name one thing worth seeing there."


@click.command()
def demo() -> None:
    """Get the small demo model and one real answer from it.

    \b
    squish demo
    """
    resolver.run(_demo(Settings.from_environment()))
    if _wants_the_chat():
        from squish.commands import full_screen

        full_screen.here(MODEL)


async def _demo(settings: Settings) -> None:
    from squish.commands.answers.run import open_model

    async with await open_model(settings, MODEL) as runtime:
        await _show(runtime)


async def _show(runtime: Runtime) -> None:
    """Ask the demo model, stream its answer, say how fast it was and what to do next."""
    from squish.chats.messages import ChatSettings
    from squish.commands.answers import answering, repl

    console.note(f"\n❯ squish run {MODEL} --prompt {_PROMPT!r}\n")
    request = repl.chat_request(MODEL, _PROMPT, ChatSettings(temperature=0, max_tokens=96))
    screen = console.AnswerPrinter()
    answered = await answering.answer(runtime, request, screen.write)
    screen.end()
    console.dim(f"\n{answered.summary}")
    [status] = runtime.sessions.status()
    console.dim(f"{status.name}: {figures.size(status.weights_bytes)} of weights in memory, {status.backend}")
    program = _program()
    steps = (
        (program, "chat in the terminal"),
        (f"{program} run {MODEL}", "talk line by line"),
        (f"{program} serve", "OpenAI's, Anthropic's and Ollama's APIs on http://localhost:11435"),
    )
    width = max(len(command) for command, _ in steps)
    console.note("\nNext:")
    for command, what in steps:
        console.note(f"  {command:{width}}   {what}")
    console.note()


def _program() -> str:
    """What to type to start Squish again: its name where the shell finds it, else the path that was typed."""
    typed = sys.argv[0]
    named = Path(typed).name == "squish" and shutil.which("squish") != typed
    return typed if named else "squish"


def _wants_the_chat() -> bool:
    """On a terminal, ask whether to open the chat."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return False
    sys.stderr.write("Open the chat now? [Y/n] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("", "y", "yes")
