"""The command line. A command pays for its own imports, and for no other's.

What the exit codes mean stands in exits.py.
"""

from __future__ import annotations

import errno
import gc
import io
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from squish import console
from squish.commands import completion, exits
from squish.commands.by_name import Commands
from squish.commands.exits import Exit
from squish.config.settings import resolve
from squish.errors import InvalidInput, SquishError
from squish.system import descriptors
from squish.system.host import HOST
from squish.text import require_utf8


def main() -> None:
    """The console script."""
    # A stream that is closed is None; what is said there then goes nowhere.
    sys.stdin = sys.stdin or Path(os.devnull).open(encoding="utf-8")  # noqa: SIM115 - for the program's life
    sys.stdout = sys.stdout or Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = sys.stderr or Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")  # what is typed or piped in need not be UTF-8
    completion.prepare()
    descriptors.raise_limit()
    code = run_guarded(lambda: cli.main(prog_name="squish", standalone_mode=False))
    gc.freeze()  # nothing is traversed once more at exit
    sys.exit(code)


def run_guarded(body: Callable[[], Any]) -> int:
    """Run a command body; whatever happens becomes an exit code and, where it helps, a clear sentence."""
    try:
        result = body()
        return result if isinstance(result, int) else 0
    except click.ClickException as error:
        said = io.StringIO()
        error.show(said)
        console.note(said.getvalue().rstrip("\n"))
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
    except MemoryError:
        from squish.ipc.limits import memory_limit

        console.error(SquishError("There is not enough memory.", hint=memory_limit() or "Close other programs."))
        return Exit.FAILED
    except Exception as error:  # the last guard of the program: no traceback reaches a user who has not asked for it
        if resolve().settings.debug:
            raise
        console.error(_problem(error))
        return Exit.FAILED


def _problem(error: Exception) -> SquishError:
    """What a user can do about an error that nothing else has words for."""
    from squish.ipc.limits import is_of_processes, process_limit
    from squish.system.working_directory import is_deleted

    if is_of_processes(error):
        return SquishError("No more processes or threads can be started.", hint=process_limit())
    if isinstance(error, FileNotFoundError) and error.filename is None and is_deleted():
        return SquishError("The current folder has been deleted.", hint="Change to another one (cd), and try again.")
    return SquishError(
        f"Something unexpected went wrong: {type(error).__name__}: {error}",
        hint="SQUISH_DEBUG=1 shows where. Please report it.",
    )


def _discard_output() -> None:
    """Python flushes stdout once more at exit: give it a place where that is quiet."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _PipeClosed(Exception):
    """The reader of our output has gone. (Click ends the program by itself when it meets a BrokenPipeError.)"""


class _Group(click.Group):
    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        for each in args:
            require_utf8(each, "The argument")
        return super().parse_args(context, args)

    def resolve_command(self, context: click.Context, args: list[str]) -> Any:
        """Import the command, with which the imports end for which __main__ has left the collector off."""
        found = super().resolve_command(context, args)
        if not gc.isenabled():
            gc.freeze()
            gc.enable()
        return found

    def invoke(self, context: click.Context) -> Any:
        if (reason := HOST.unsuitable()) is not None:
            console.note(reason)
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
        from squish.system import versions

        console.out(versions.summary())
        context.exit()


@click.group(
    cls=_Group,
    commands=Commands(),
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_show_version, help="Show all versions."
)
@click.option(
    "--connect",
    "url",
    metavar="URL",
    help="Open the chat with the models of a server: another Squish, or any with the OpenAI API.",
)
@click.option("--key-env", metavar="VAR", help="The variable that has the server's key.  [default: SQUISH_API_KEY]")
@click.pass_context
def cli(context: click.Context, url: str | None, key_env: str | None) -> int:
    """Run large language models on your own machine.

    Without a command, the full-screen chat opens.

    \b
    squish pull smollm2:135m                  get a model
    squish run smollm2:135m --prompt "Hi"     ask it once
    squish serve                              for clients of OpenAI, Anthropic and Ollama
    squish doctor                             find out what is wrong
    """
    if key_env is not None and url is None:
        raise click.UsageError("--key-env needs --connect URL.")
    if context.invoked_subcommand is not None:
        if url is not None:
            raise click.UsageError("--connect takes no command: squish --connect URL.")
        return 0
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        if url is not None:
            raise InvalidInput("The full-screen chat needs a terminal.", hint="Start it in one.", param="--connect")
        console.out(context.get_help())
        return 0
    from squish.commands import full_screen

    return full_screen.here(None) if url is None else full_screen.there(url, key_env)
