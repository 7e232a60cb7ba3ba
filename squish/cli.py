"""The command line: click commands with short bodies. Imports stand inside them, so that a command pays for its own.

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
from squish.commands import bench, chats, completion, config, doctor, exits, launch, mcp
from squish.commands.answers import batch, embed, run
from squish.commands.answers.run import open_model
from squish.commands.exits import Exit
from squish.commands.models import catalog, fuse, importing, installed, pull, search
from squish.commands.serving import keys, serve, servers, service, web, worker
from squish.config.settings import Settings, resolve
from squish.download import resolver
from squish.errors import InvalidInput, SquishError
from squish.system import descriptors, versions
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
    sys.exit(run_guarded(lambda: cli.main(prog_name="squish", standalone_mode=False)))


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
        console.out(versions.summary())
        context.exit()


@click.group(cls=_Group, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
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
    return _open_tui(None) if url is None else _connect(url, key_env)


def _open_tui(model: str | None) -> int:
    gc.disable()  # until the first picture, see SquishApp: half a second of imports makes no garbage
    from squish.commands.serving.serve import serve_beside
    from squish.tui.program import run as run_tui

    settings = Settings.from_environment()
    return run_tui(settings, model or settings.model, serve=serve_beside)


def _connect(url: str, key_env: str | None) -> int:
    gc.disable()  # as above
    from squish.commands.serving.connect import address_and_key
    from squish.tui.program import run as run_tui

    settings = Settings.from_environment()
    connect = address_and_key(url, key_env, settings)
    return run_tui(settings, settings.model, connect=connect)


_ASKING = (run.run, embed.embed, batch.batch, serve.serve, launch.launch, web.web)
_OTHERS = (servers.ps, servers.stop, service.service, keys.keys, keys.usage, chats.chats, mcp.mcp, bench.bench)
_LAST = (worker.worker, doctor.doctor, config.config, completion.completion)
for _command in (
    pull.pull,
    importing.import_models,
    fuse.fuse,
    *installed.COMMANDS,
    catalog.catalog,
    search.search,
    *_ASKING,
    *_OTHERS,
    *_LAST,
):
    cli.add_command(_command)


@cli.command()
def demo() -> None:
    """Get the small demo model and one real answer from it.

    \b
    squish demo
    """
    from squish.commands.answers import demo as demonstration

    settings = Settings.from_environment()
    resolver.run(_demo(settings))
    if demonstration.wants_tui():
        _open_tui(demonstration.MODEL)


async def _demo(settings: Settings) -> None:
    from squish.commands.answers import demo as demonstration

    runtime = await open_model(settings, demonstration.MODEL)
    async with runtime:
        await demonstration.show(runtime)
