"""The command line: click commands with short bodies. Imports stand inside them, so that a command pays for its own.

What the exit codes mean stands in exits.py.
"""

from __future__ import annotations

import asyncio
import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from squish import console, versions
from squish.commands import bench, chats, completion, config, exits, machine, serve
from squish.commands.exits import Exit
from squish.commands.models import COMMANDS, install
from squish.config import Settings, resolve
from squish.errors import InvalidInput, ModelNotFound, SquishError

if TYPE_CHECKING:
    from squish.runtime import Runtime


def main() -> None:
    """The console script."""
    # A stream that is closed is None; what is said there then goes nowhere.
    sys.stdin = sys.stdin or Path(os.devnull).open(encoding="utf-8")  # noqa: SIM115 - for the program's life
    sys.stdout = sys.stdout or Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = sys.stderr or Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    completion.prepare()
    sys.exit(run_guarded(lambda: cli.main(prog_name="squish", standalone_mode=False)))


def run_guarded(body: Callable[[], Any]) -> int:
    """Run a command body; whatever happens becomes an exit code and, where it helps, a clear sentence."""
    try:
        result = body()
        return result if isinstance(result, int) else 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return Exit.INTERRUPTED
    except SquishError as error:
        if resolve().settings.debug:
            raise
        console.error(error)
        return exits.of(error)
    except _PipeClosed:
        _discard_output()
        return Exit.PIPE_CLOSED
    except Exception as error:  # the last guard of the program: no traceback reaches a user who has not asked for it
        if resolve().settings.debug:
            raise
        problem = SquishError(
            f"Something unforeseen went wrong: {type(error).__name__}: {error}",
            hint="SQUISH_DEBUG=1 shows where. Please report it.",
        )
        console.error(problem)
        return Exit.FAILED


def _discard_output() -> None:
    """Python flushes stdout once more at exit: give it a place where that is quiet."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _PipeClosed(Exception):
    """Whoever read our output has gone. (Click ends the program by itself when it meets a BrokenPipeError.)"""


class _Group(click.Group):
    def invoke(self, context: click.Context) -> Any:
        try:
            result = super().invoke(context)
            sys.stdout.flush()
            return result
        except BrokenPipeError as error:
            raise _PipeClosed from error
        except OSError as error:
            if error.errno == errno.ENOSPC:
                _discard_output()
                raise SquishError("The disk is full: the output or a file cannot be written.") from error
            raise


def _show_version(context: click.Context, parameter: click.Parameter, wanted: bool) -> None:
    if wanted:
        console.out(versions.summary())
        context.exit()


@click.group(cls=_Group, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_show_version, help="Show all versions."
)
@click.pass_context
def cli(context: click.Context) -> int:
    """Run large language models on your own machine.

    Without a command, the full-screen chat opens.

    \b
    squish pull smollm2:135m                  get a model
    squish run smollm2:135m --prompt "Hi"     ask it once
    squish serve                              OpenAI API on http://localhost:11435/v1
    squish doctor                             what is wrong, if something is
    """
    if context.invoked_subcommand is not None:
        return 0
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        console.out(context.get_help())
        return 0
    return _open_tui(None)


for _command in COMMANDS:
    cli.add_command(_command)


def _open_tui(model: str | None) -> int:
    from squish.commands.serve import serve_beside
    from squish.tui.app import run as run_tui

    settings = Settings.from_environment()
    return run_tui(settings, model or settings.model, serve=serve_beside)


@cli.command()
@click.argument("model", shell_complete=completion.complete_model, required=False)
@click.option("-p", "--prompt", help="Ask once and print only the answer; text piped in is put behind it.")
@click.option("--system", help="System prompt.")
@click.option("--temperature", type=float, default=0.7, show_default=True, help="0 is greedy; at most 2.")
@click.option("--top-p", type=float, default=0.9, show_default=True, help="Nucleus sampling; 1 is off.")
@click.option("--top-k", type=int, default=0, help="Draw from the k most probable tokens; 0 is off.")
@click.option("--min-p", type=float, default=0.0, help="Leave out tokens below this share of the best; 0 is off.")
@click.option("--max-tokens", type=int, default=None, help="Longest answer.  [default: 512, in a conversation 2048]")
@click.option("--seed", type=int, help="The same seed gives the same answer.")
@click.option("--stop", multiple=True, help="End the answer before this text; up to four times.")
@click.option("--json", "as_json", is_flag=True, help="Print one object with text, usage and timings.")
@click.option("--save", is_flag=True, help="Keep the conversation: `squish chats` and the full-screen chat show it.")
@click.option("-c", "--continue", "go_on", is_flag=True, help="Go on with the conversation that was used last.")
@click.option("--chat", type=int, metavar="ID", help="Go on with this conversation.")
def run(
    model: str | None,
    prompt: str | None,
    as_json: bool,
    save: bool,
    go_on: bool,
    chat: int | None,
    **params: Any,
) -> None:
    """Chat with a model line by line, or with --prompt ask it once.

    \b
    squish run smollm2:135m
    squish run smollm2:135m --prompt "What is the capital of France?"
    git diff | squish run qwen3:8b --prompt "Write a commit message for this:"
    squish run -c --prompt "And of Spain?"

    A conversation that goes on is asked as before: with its model, system prompt and parameters, but for what is given.
    """
    from squish import kept
    from squish.commands import repl

    text = repl.with_stdin(prompt) if prompt is not None or not sys.stdin.isatty() else None
    if text is None and (prompt is not None or as_json or not sys.stdin.isatty()):
        raise InvalidInput("There is no prompt.", hint="Give --prompt some text, or pipe some in.", param="--prompt")
    settings = Settings.from_environment()
    continued = kept.chosen(settings.home, chat) if go_on or chat is not None else None
    source = click.get_current_context().get_parameter_source
    given = {name: value for name, value in params.items() if source(name) is ParameterSource.COMMANDLINE}
    asked = kept.settings_of(continued, given, max_tokens=2048 if text is None else 512)
    model = model or (continued.model if continued else None)
    if model is None:
        raise click.UsageError("Missing argument 'MODEL'.")
    with asyncio.Runner() as runner:
        runtime = runner.run(_open_model(settings, model))
        keeping = kept.Kept(runtime.chats, model, asked, continued) if save or continued else None
        try:
            if text is None:
                repl.Repl(runtime, model, asked, keeping).run(runner)
            else:
                request = repl.chat_request(model, text, asked, keeping.turns() if keeping else ())
                runner.run(repl.single(runtime, request, text, as_json=as_json, kept=keeping))
        finally:
            runner.run(runtime.close())


async def _open_model(settings: Settings, model: str) -> Runtime:
    """A runtime in which this model is installed: one that is missing is pulled first."""
    from squish.runtime import Runtime

    runtime = Runtime(settings)
    try:
        runtime.store.find(model)
    except ModelNotFound:
        await install(settings, model)
    return runtime


cli.add_command(serve.serve)
cli.add_command(bench.bench)
cli.add_command(completion.completion)
cli.add_command(config.config)
cli.add_command(chats.chats)
cli.add_command(machine.doctor)
cli.add_command(machine.ps)
cli.add_command(machine.stop)


@cli.command()
def demo() -> None:
    """Get the small demo model and one real answer from it.

    \b
    squish demo
    """
    from squish.commands import demo as demonstration

    settings = Settings.from_environment()
    asyncio.run(_demo(settings))
    if demonstration.wants_tui():
        _open_tui(demonstration.MODEL)


async def _demo(settings: Settings) -> None:
    from squish.commands import demo as demonstration

    runtime = await _open_model(settings, demonstration.MODEL)
    async with runtime:
        await demonstration.show(runtime)
