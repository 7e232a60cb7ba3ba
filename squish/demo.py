"""`squish demo`: one real answer from a small real model, and what to type next."""

from __future__ import annotations

import sys

from squish import console, repl
from squish.chats import ChatSettings
from squish.runtime import Runtime

MODEL = "smollm2:135m"
_PROMPT = "What is the capital of France? Then name one thing worth seeing there."


async def show(runtime: Runtime) -> None:
    """Ask the demo model, stream its answer, say how fast it was and what to do next."""
    console.note(f"\n❯ squish run {MODEL} --prompt {_PROMPT!r}\n")
    request = repl.chat_request(MODEL, _PROMPT, ChatSettings(temperature=0, max_tokens=96))
    screen = console.Answer()
    answered = await repl.answer(runtime, request, screen.write)
    screen.end()
    console.dim(f"\n{answered.summary}")
    [status] = runtime.sessions.status()
    console.dim(f"{status.name}: {console.size(status.weights_bytes)} of weights, {status.backend}")
    console.note(
        f"""
Next:
  .venv/bin/squish                          chat in the terminal
  .venv/bin/squish run {MODEL}        talk line by line
  .venv/bin/squish serve                    OpenAI API on http://127.0.0.1:11435/v1
"""
    )


def wants_tui() -> bool:
    """On a terminal, ask whether to open the chat."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return False
    sys.stderr.write("Open the chat now? [Y/n] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("", "y", "yes")
