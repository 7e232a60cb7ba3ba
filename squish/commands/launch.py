"""`squish launch`: starts another program so that it uses a model of Squish's, for this run alone."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import shlex
import shutil
import signal
import tempfile
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

import click

from squish import console
from squish.commands import interrupts
from squish.commands.completion import complete_model
from squish.commands.programs import PROGRAMS, Program, Setup, Use, written
from squish.config.settings import Settings
from squish.errors import InvalidInput, ModelNotFound, SquishError
from squish.text import clean

if TYPE_CHECKING:
    from squish.models.store import Store

_ANY_KEY = "squish"
_ANYWHERE = ("0.0.0.0", "::")
_USUAL_CONTEXT = 32_768  # of a model that is not here
_SECONDS = 10.0
_LARGEST = 10_000_000  # bytes of a list of models
_LOCAL = "localhost,127.0.0.1,::1"


def complete_program(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    return [name for name in PROGRAMS if name.startswith(incomplete)]


@click.command()
@click.argument("program", required=False, shell_complete=complete_program)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[-- ARGUMENT...]")
@click.option("--model", shell_complete=complete_model, help="The model to use.  [default: the loaded or only one]")
@click.option("--url", help="A server that runs elsewhere, such as http://mac.local:11435.")
@click.option(
    "--print", "only_print", is_flag=True, help="Print what would be set and run, as a shell would, and exit."
)
def launch(
    program: str | None, arguments: tuple[str, ...], model: str | None, url: str | None, only_print: bool
) -> int:
    """Start an agent or editor on one of Squish's models.

    Variables, flags and temporary files are set for this run; none of your files change. A running server is used;
    otherwise one runs as long as the program. Without a PROGRAM, the supported ones are listed.

    \b
    squish launch
    squish launch codex --model qwen3:8b
    squish launch claude --print
    squish launch aider --model qwen3:8b -- --no-git README.md
    """
    if program is None:
        _list()
        return 0
    if program not in PROGRAMS:
        hint = f"Known are {', '.join(PROGRAMS)}. For others: docs/agents.md."
        raise InvalidInput(f"squish launch does not know {program[:40]!r}.", hint=hint, param="program")
    chosen, settings = PROGRAMS[program], Settings.from_environment()
    where = shutil.which(chosen.command)
    if where is None and not only_print:
        raise SquishError(
            f"{chosen.about} is not installed: there is no {chosen.command}.", hint=f"Run: {chosen.install}"
        )
    if only_print:
        server = url or _running(settings) or f"http://localhost:{settings.port}"
        name, context = _model(settings, model, url)
        _print(chosen, Use(_reachable(server), f"${{SQUISH_API_KEY:-{_ANY_KEY}}}", name, context), arguments)
        return 0
    if interrupts.taken():
        signal.signal(signal.SIGINT, _left_to_the_program)
    return asyncio.run(_launch(settings, chosen, (where or "", *arguments), model, url))


def _left_to_the_program(number: int, frame: object) -> None:
    """Ctrl-C reaches the program by itself; what it means there is for the program to say."""


async def _launch(
    settings: Settings, program: Program, command: Sequence[str], model: str | None, url: str | None
) -> int:
    """The exit code of the program."""
    name, context = _model(settings, model, url)
    if url is None:
        _warn_without_tools(settings, program, name)
    async with _server(settings, url) as server:
        target = Use(_reachable(server.url), server.key, name, context)
        setup = program.setup(target)
        with tempfile.TemporaryDirectory(prefix="squish-launch-") as folder:
            files, flags = written(setup, Path(folder))
            for path, text in files.items():
                path.write_text(text, encoding="utf-8")
            console.note(f"{program.about} uses {name} at {target.url}")
            environment = _environment(os.environ, setup)
            process = await asyncio.create_subprocess_exec(command[0], *flags, *command[1:], env=environment)
            code = await process.wait()
    return code if code >= 0 else 128 - code


class Reached(NamedTuple):
    """url: its address. key: what programs send it."""

    url: str
    key: str


@asynccontextmanager
async def _server(settings: Settings, url: str | None) -> AsyncIterator[Reached]:
    """The server to use; where none runs, of one that runs until the block is left."""
    found, key = url or _running(settings), settings.api_key or _ANY_KEY
    if found is not None:
        if url is None:  # it can have been started with a key that is not set here
            await asyncio.to_thread(models_at, _reachable(found), key)
        yield Reached(found, key)
        return
    from squish.system.own_server import own_server

    console.note("No server is running; one starts for this run")
    async with own_server(settings.home) as server:
        yield Reached(server.url, server.key)


def _running(settings: Settings) -> str | None:
    from squish.system.servers import servers

    return next((server.url for server in servers(settings.home) if server.url), None)


def _reachable(url: str) -> str:
    """An address without a path, as this machine reaches it. Raises InvalidInput for what is none."""
    try:
        parts = urlsplit(url if "//" in url else f"http://{url}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or parts.scheme not in ("http", "https"):
        hint = "It is the server's address, such as http://localhost:11435."
        raise InvalidInput(f"{url[:80]!r} is not an address.", hint=hint, param="--url")
    shown = "localhost" if host in _ANYWHERE else f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{shown}" + (f":{port}" if port else "")


def _model(settings: Settings, wanted: str | None, url: str | None) -> tuple[str, int]:
    """The name of the model to use, and its context in tokens. Raises ModelNotFound, and InvalidInput for a choice."""
    from squish.models.store import Store

    store = Store(settings.cache_dir)
    if url is not None:
        name = _of_server(_reachable(url), settings.api_key or _ANY_KEY, wanted)
        return name, _context_or(store, name, _USUAL_CONTEXT)
    chats = [each.id for each in store.list() if each.kind == "chat"]
    found = store.find(wanted or _loaded(settings, chats) or settings.model or _only(chats))
    found.manifest.require_chat()
    return found.manifest.id, found.manifest.context_length


def _of_server(url: str, key: str, wanted: str | None) -> str:
    """The name of the model to use of a server elsewhere. Raises SquishError when it does not answer as ours do."""
    known = models_at(url, key)
    if wanted is None and len(known) == 1:
        return known[0]
    if wanted is None:
        hint = f"Add --model with one of {clean(', '.join(known))[:400]}."
        raise InvalidInput(f"{url} has {len(known)} models; say which one.", hint=hint, param="--model")
    if wanted.removesuffix(":latest") not in known:
        raise ModelNotFound(f"{url} does not have {wanted}.", hint=f"It has: {clean(', '.join(known))[:400]}.")
    return wanted


def models_at(url: str, key: str) -> list[str]:
    """What a server says that it has. Raises SquishError when it says nothing, or wants another key."""
    request = urllib.request.Request(f"{url}/v1/models", headers={"authorization": f"Bearer {key}"})
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(request, timeout=_SECONDS) as answer:
            return [str(model["id"]) for model in json.loads(answer.read(_LARGEST))["data"]]
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 401:
            message = f"The server at {url} wants another key."
            raise SquishError(message, hint="Set SQUISH_API_KEY to its key.") from None
        raise SquishError(f"{url} answers {error.code}: it does not serve models.") from None
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        hint = "Compare with the address that squish serve prints."
        raise SquishError(f"No Squish server answers at {url}.", hint=hint) from None


def _context_or(store: Store, name: str, otherwise: int) -> int:
    try:
        return store.find(name).manifest.context_length
    except SquishError:
        return otherwise


def _loaded(settings: Settings, chats: Sequence[str]) -> str | None:
    from squish.system.servers import servers

    loaded = (model.name for server in servers(settings.home) for model in server.models)
    return next((name for name in loaded if name in chats), None)


def _only(chats: Sequence[str]) -> str:
    if not chats:
        raise ModelNotFound("No chat model is installed.", hint="Run: squish pull qwen3:8b")
    if len(chats) > 1:
        hint = f"Add --model with one of {', '.join(chats)[:400]}."
        raise InvalidInput("Several models are installed; say which one.", hint=hint, param="--model")
    return chats[0]


def _warn_without_tools(settings: Settings, program: Program, model: str) -> None:
    from squish.format import abilities
    from squish.models.store import Store

    if program.needs_tools and not abilities.read(Store(settings.cache_dir).find(model).path).tools:
        console.note(f"WARNING: {model} cannot call tools, which {program.about} needs; its requests will be refused.")


def _environment(given: Mapping[str, str], setup: Setup) -> dict[str, str]:
    """The variables of the program. A proxy is not asked for the server on this machine."""
    found = {name: value for name, value in given.items() if setup.variables.get(name, "") is not None}
    found |= {name: value for name, value in setup.variables.items() if value is not None}
    if any(name.lower() in ("http_proxy", "https_proxy", "all_proxy") for name in found):
        for name in ("no_proxy", "NO_PROXY"):
            found[name] = ",".join(filter(None, (found.get(name), _LOCAL)))
    return found


def _list() -> None:
    rows = [
        (name, program.about, "" if shutil.which(program.command) else f"not installed: {program.install}")
        for name, program in PROGRAMS.items()
    ]
    console.table(("PROGRAM", "", ""), rows)


def _print(program: Program, target: Use, arguments: Sequence[str]) -> None:
    """Lines for a shell that do the same."""
    setup = program.setup(target)
    files, flags = written(setup, Path("$SQUISH_LAUNCH"))
    for name, value in setup.variables.items():
        console.out(f"unset {name}" if value is None else f"export {name}={_quoted(value, target.key)}")
    if files:
        console.out('SQUISH_LAUNCH="$(mktemp -d)"')  # where they are run there may be files of the same names
    for path, text in files.items():
        console.out(f'cat > "{path}" <<END\n{text}\nEND')
    places = {str(path) for path in files}
    words = [f'"{each}"' if each in places else shlex.quote(each) for each in (program.command, *flags)]
    console.out(" ".join((*words, *map(shlex.quote, arguments))))


def _quoted(value: str, key: str) -> str:
    """For a shell. The key is the one that is set there, and is not shown."""
    return f'"{value}"' if value == key else shlex.quote(value)
