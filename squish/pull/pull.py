"""The use case of installing a model: resolve → download → import → verify → commit.

A pull of one model is done once: a second one, in any process, waits and finds it installed. What was downloaded
survives a stop and is taken up by the next pull. It knows neither HTTP nor MLX.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path

from squish.config.keys import DEFAULT_ENDPOINT
from squish.config.settings import Settings
from squish.download.disk import hash_file, in_thread, occupied
from squish.download.patience import Policy
from squish.errors import CorruptModel, InvalidInput, InvalidName, ModelInUse, ModelNotFound, UnsupportedModel
from squish.ipc.jobs import Jobs
from squish.models.recipes import CompressionOptions
from squish.models.store import Store
from squish.names import LocalPath, ModelId, ModelRef, parse
from squish.pull.adapter import Given, install_adapter
from squish.pull.events import Progress, Pulled, PullStarted, Report
from squish.pull.fetch import Fetched, compress_directory, fetch
from squish.pull.install import install_directory, install_fetched, install_gguf, reporting, require_no_adapter
from squish.pull.neighbors import Neighbor
from squish.pull.order import Order, already_installed, make_order, order_for
from squish.pull.sources import DirectorySource, FileSource, HubSource
from squish.pull.stream import Pull
from squish.system.awake import awake

_TURN_TICK = 0.1


def pull(
    name: str,
    *,
    settings: Settings,
    store: Store,
    force: bool = False,
    as_name: str | None = None,
    compression: CompressionOptions | None = None,
    policy: Policy | None = None,
    base: str | None = None,
) -> Pull:
    """Install the model of a name; one that is installed is done at once, unless `force`.

    base: the name is that of an adapter, of this installed model.

    as_name: the id to install it under. compression: what to do with full precision, by default what the catalog says
    of a short name, and 4 bits for a repository.
    Leaving the block of the pull stops it; what was downloaded stays for the next.
    Raises the SquishErrors of resolving (InvalidName, ModelNotFound, Offline), downloading, importing and the store.
    """

    async def work(report: Report) -> None:
        if base is not None:
            with awake():
                given = Given(_parse(name, settings), as_name, store.find(base), settings, store, policy)
                report(await _install_adapter(given, report, force=force))
            return
        wanted_id = None if as_name is None else _parse_id(as_name)
        order = make_order(_parse(name, settings), wanted_id, compression, settings, store, policy)
        report(PullStarted(order.id, str(order.source)))
        with awake():
            report(await _install_once(order, report, force=force))

    return Pull(work)


def take(model: Neighbor, *, settings: Settings, store: Store, force: bool = False) -> Pull:
    """Install a model of another program on this machine. Raises the SquishErrors of importing and of the store."""

    async def work(report: Report) -> None:
        order = order_for(model, settings, store)
        report(PullStarted(order.id, str(model.path)))
        with awake():
            if model.sha256 is not None and (force or already_installed(order) is None):
                report(Progress("verify", 0, model.size))
                seen = reporting(report, "verify", 0, model.size)
                if await in_thread(hash_file, model.path, seen) != model.sha256:
                    problem = f"{model.path} is damaged: it does not have the hash that is its name."
                    raise CorruptModel(problem, hint="Let its own program download it again.", param="model")
            report(await _install_once(order, report, force=force))

    return Pull(work)


def _parse(name: str, settings: Settings) -> ModelRef:
    """The reference of a name; the address of a page of another Hub, which HF_ENDPOINT names, is one too."""
    own = f"{settings.hub_endpoint}/"
    return parse(f"{DEFAULT_ENDPOINT}/{name.strip().removeprefix(own)}" if name.strip().startswith(own) else name)


def _parse_id(name: str) -> ModelId:
    """The reference of a name to install under. Raises InvalidName."""
    ref = parse(name)
    if isinstance(ref, LocalPath):
        raise InvalidName(f"{name!r} is a path and cannot name an installed model.", param="name")
    return ref


async def _install_once(order: Order, report: Report, *, force: bool) -> Pulled:
    if not force and (installed := already_installed(order)) is not None:
        return Pulled(installed, fresh=False)
    async with _turn(order.store, order.id):
        if not force and (installed := already_installed(order)) is not None:
            return Pulled(installed, fresh=False)
        report(Progress("resolve", 0, 0))
        async with Jobs(order.settings.worker_cache) as jobs:
            match order.source:
                case HubSource(repo):
                    partial = order.store.partial(order.id)
                    return await _install_fetched(order, fetch(order, repo, partial, report, jobs), report, jobs)
                case FileSource(path):
                    return Pulled(await install_gguf(order, path, report, jobs))
                case DirectorySource(path):
                    require_no_adapter(path)
                    if order.compression.recipe is None:
                        return Pulled(await install_directory(order, path, report, jobs))
                    partial = order.store.partial(order.id)
                    return await _install_fetched(
                        order, compress_directory(order, path, partial, report, jobs), report, jobs
                    )


async def _install_adapter(given: Given, report: Report, *, force: bool) -> Pulled:
    id = given.id
    report(PullStarted(id, given.source))
    async with _turn(given.store, id):
        with suppress(ModelNotFound, CorruptModel):
            if not force:
                return Pulled(given.store.find(id), fresh=False)
        return Pulled(await install_adapter(given, report))


async def _install_fetched(order: Order, fetching: Awaitable[Fetched], report: Report, jobs: Jobs) -> Pulled:
    partial, complete = order.store.partial(order.id), False
    try:
        fetched = await fetching
        complete = True
        pulled = await install_fetched(order, fetched, report, jobs)
        await _delete(partial)
        return pulled
    except (UnsupportedModel, InvalidInput, ModelNotFound, CorruptModel) as error:
        # No later pull will need these bytes, or there are none.
        if complete or not isinstance(error, CorruptModel) or not await asyncio.to_thread(occupied, partial):
            await _delete(partial)
        raise
    finally:
        with suppress(OSError):  # there is something in it, or it is installed
            partial.rmdir()


async def _delete(directory: Path) -> None:
    await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)


@asynccontextmanager
async def _turn(store: Store, id: str) -> AsyncIterator[None]:
    """The right to install a model, waited for without blocking the event loop."""
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(store.lock(id, wait=False))
                break
            except ModelInUse:
                await asyncio.sleep(_TURN_TICK)
        yield
