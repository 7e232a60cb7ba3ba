"""Models come and go over HTTP: /api/pull, /api/copy and /api/delete.

Nothing is downloaded and nothing is changed unless the server was started with --allow-pull.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator

from squish.api import bodies
from squish.api.dialect import Call, Pieces, WithStatus
from squish.api.errors import Failure, Refused
from squish.api.models import check_model
from squish.api.ollama.errors import ErrorLine, error_line
from squish.api.ollama.requests import CopyRequest, NamedModel, PullRequest
from squish.api.ollama.responses import Progress
from squish.api.ollama.translate import read_named
from squish.api.replies.frames import JsonLines
from squish.errors import InvalidName, ModelNotFound
from squish.names import LocalPath, parse, without_latest
from squish.pull import events
from squish.pull.pull import pull as start_pull
from squish.runtime import Runtime

_PHASES: dict[str, str] = {
    "resolve": "pulling manifest",
    "download": "pulling",
    "score": "choosing bits",
    "compress": "compressing",
    "import": "importing",
    "measure": "measuring",
    "verify": "verifying sha256 digest",
}
_DONE = "success"


async def pull(call: Call) -> Progress | Pieces:
    """POST /api/pull. A model that is installed is there at once, on every server."""
    request, name = await call.read(lambda body: read_named(body, PullRequest))
    check_model(name)
    name = _plain(name)
    runtime = call.services.runtime
    if await asyncio.to_thread(_is_installed, runtime, name):
        lines = _nothing_to_pull()
    else:
        _require_allowed(call, f"This server downloads nothing. Run: squish pull {name}")
        lines = _pulling(runtime, name)
    if request.stream is not False:
        return Pieces(JsonLines(), lines, _failed)
    return [line async for line in lines][-1]


async def copy(call: Call) -> WithStatus:
    """POST /api/copy: a second name for a model, whose files are shared."""
    request = await call.read(lambda body: bodies.decode(body, CopyRequest))
    _require_allowed(call, "This server changes no models. Run: squish cp")
    check_model(request.source)
    target = _plain(request.destination)
    async with call.asking(request.source, counted=False):
        await asyncio.to_thread(call.services.runtime.store.copy, request.source, target)
    return WithStatus()


async def delete(call: Call) -> WithStatus:
    """DELETE /api/delete. A model that answers somebody stays: 409."""
    _, name = await call.read(lambda body: read_named(body, NamedModel))
    _require_allowed(call, f"This server deletes nothing. Run: squish rm {name}")
    runtime = call.services.runtime
    async with call.asking(name, counted=False):
        id = (await asyncio.to_thread(runtime.store.find, name)).manifest.id
    if any(each.name == id and each.running + each.waiting for each in runtime.sessions.status()):
        raise Refused(409, "model_in_use", f"{id} is answering requests. Try again when they have ended.")
    await runtime.sessions.unload(id)
    await asyncio.to_thread(runtime.store.remove, id)
    return WithStatus()


def progress(event: events.PullEvent, name: str) -> Progress | None:
    """A line about an event of a pull; None where Ollama has nothing to say."""
    match event:
        case events.PullStarted():
            return Progress(status=_PHASES["resolve"])
        case events.Progress(phase=phase, done=done, total=total) if total:
            key = f"sha256:{hashlib.sha256(f'{phase} {name}'.encode()).hexdigest()}"
            status = f"{_PHASES[phase]} {name}" if phase in ("download", "score", "compress") else _PHASES[phase]
            return Progress(status=status, digest=key, total=total, completed=min(done, total))
        case events.Progress(phase=phase):
            return Progress(status=_PHASES[phase])
        case events.Pulled():
            return Progress(status=_DONE)
        case _:
            return None


async def _nothing_to_pull() -> AsyncGenerator[Progress, None]:
    for status in (_PHASES["resolve"], _DONE):
        yield Progress(status=status)


async def _pulling(runtime: Runtime, name: str) -> AsyncGenerator[Progress, None]:
    latest: Progress | None = None
    async with start_pull(name, settings=runtime.settings, store=runtime.store) as pulling:
        async for event in pulling:
            line = progress(event, name)
            if line is not None and line != latest:
                latest = line
                yield line


def _require_allowed(call: Call, instead: str) -> None:
    if not call.services.options.allow_pull:
        message = f"{instead}, or start the server with --allow-pull."
        raise Refused(403, "pull_not_allowed", message)


def _is_installed(runtime: Runtime, name: str) -> bool:
    try:
        runtime.store.find(name)
    except ModelNotFound:
        return False
    return True


def _plain(name: str) -> str:
    """A name without the tag that means nothing. Raises InvalidName, also for a path of this machine."""
    ref = parse(name)
    if isinstance(ref, LocalPath):
        raise InvalidName(f"{name[:80]!r} is a path and cannot name a model here.", param="model")
    return str(without_latest(ref))


def _failed(failure: Failure, request_id: str = "") -> list[ErrorLine]:
    return [error_line(failure)]
