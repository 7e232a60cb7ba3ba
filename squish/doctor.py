"""`squish doctor`: looks at everything Squish stands on and says of each thing whether it is well, and what mends it.

Each check gives findings and never raises for what it finds. Secrets are never part of one. It imports no MLX: what MLX
computes with is measured by a process that is set up as a worker is.
"""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec
import psutil

from squish import catalog, serving, unfinished, versions
from squish.config import Resolved, Settings
from squish.console import size
from squish.errors import ModelNotFound, SquishError
from squish.names import ShortName, parse
from squish.probed import Probed
from squish.store import Installed, Store
from squish.text import clean

_PROBE_SECONDS = 120
_HUB_SECONDS = 5.0
_LITTLE_DISK = 5_000_000_000
_LITTLE_MEMORY = 2_000_000_000
_SLOW_GFLOPS = 12.0
"""Per second on one core; the reference BLAS stays below it, every optimized one is above."""
_COMPILER = "Debian, Ubuntu: sudo apt-get install g++"

_MARKS = {"ok": "ok", "warning": "!", "broken": "BROKEN"}

Status = Literal["ok", "warning", "broken"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report. reason: what was found; mend: the command, or the step, that mends it."""

    topic: str
    status: Status
    reason: str
    mend: str | None = None


Check = Callable[[Settings], Iterator[Finding]]


def examine(resolved: Resolved) -> Iterator[Finding]:
    """Every finding, in the order of the report, as soon as it is known."""
    yield from config(resolved)
    checks: tuple[Check, ...] = (machine, places, engine, compiler, packages, store, hub, port)
    for check in checks:
        yield from check(resolved.settings)


def line(finding: Finding) -> str:
    """One finding for people."""
    mend = f"\n{'':21}→ {finding.mend}" if finding.mend else ""
    return f"{_MARKS[finding.status]:7} {finding.topic:12} {clean(finding.reason)}{mend}"


def config(resolved: Resolved) -> Iterator[Finding]:
    """What is wrong with config.toml, with its lines, and with the variables."""
    path = resolved.settings.config_path
    for error in resolved.errors:
        in_file = error.message.startswith(str(path))
        yield Finding(
            "config", "broken", error.message, error.hint or (f"$EDITOR {path}" if in_file else f"unset {error.param}")
        )
    if not resolved.errors:
        yield Finding("config", "ok", str(path) if path.exists() else "no config.toml: every setting has its default")


def machine(settings: Settings) -> Iterator[Finding]:
    memory = psutil.virtual_memory()
    cores = psutil.cpu_count(logical=False) or psutil.cpu_count() or 1
    yield Finding("machine", "ok", f"{platform.system()} {platform.release()}, {platform.machine()}, {cores} cores")
    free = f"{size(memory.available)} free of {size(memory.total)}"
    if memory.available < _LITTLE_MEMORY:
        yield Finding("memory", "warning", free, "Close other programs, or run: squish ps")
    else:
        yield Finding("memory", "ok", free)
    place = _nearest(settings.cache_dir)
    try:
        disk = shutil.disk_usage(place)
    except OSError as error:
        yield Finding("disk", "broken", f"{place}: {error.strerror}", "squish config show")
        return
    free = f"{size(disk.free)} free of {size(disk.total)} at {settings.cache_dir}"
    if disk.free < _LITTLE_DISK:
        yield Finding("disk", "warning", free, "squish list shows sizes; squish rm NAME frees space")
    else:
        yield Finding("disk", "ok", free)


def places(settings: Settings) -> Iterator[Finding]:
    """Whether Squish can write where it keeps its files. Models that others installed can be used without."""
    looked_at: tuple[tuple[Path, Status], ...] = ((settings.home, "broken"), (settings.cache_dir, "warning"))
    for path, status in looked_at:
        place = _nearest(path)
        if not (place.is_dir() and os.access(place, os.W_OK | os.X_OK)):
            mend = f"ls -ld {shlex.quote(str(place))} says whose it is; SQUISH_CACHE_DIR puts models elsewhere"
            yield Finding("files", status, f"{path}: nothing can be written there", mend)


def _nearest(path: Path) -> Path:
    """The path, or the nearest one above it that we can see."""
    for each in (path, *path.parents):
        try:
            if each.exists():
                return each
        except OSError:  # what lies in a directory that is closed to us
            continue
    return path


def engine(settings: Settings) -> Iterator[Finding]:
    """MLX, its device and its matrix products."""
    probed = probe(settings)
    if isinstance(probed, str):
        mend = f"{sys.executable} -m pip install --force-reinstall mlx"
        yield Finding("MLX", "broken", probed, "unset SQUISH_BLAS" if "SQUISH_BLAS" in probed else mend)
        return
    yield Finding("MLX", "ok", f"{probed.mlx} on {probed.backend}: {probed.device}")
    speed = f"{probed.blas}: {probed.gflops:.0f} GFLOP/s"
    where = f" ({probed.blas_path})" if probed.blas_path else ""
    slow = probed.backend == "CPU" and probed.gflops < _SLOW_GFLOPS
    for warning in probed.warnings:
        needed = None if shutil.which("g++") else _COMPILER
        yield Finding("matrices", "warning", f"{speed}{where}. {warning}", needed)
    if slow and not probed.warnings:
        yield Finding("matrices", "warning", f"{speed}{where}; that is slow", "look for busy programs: top")
    elif not probed.warnings:
        yield Finding("matrices", "ok", speed + where)


def probe(settings: Settings) -> Probed | str:
    """What MLX computes with, measured in a process of its own; a sentence when that fails."""
    command = [sys.executable, "-P", "-m", "squish.worker.probe", str(settings.worker_cache)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_PROBE_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return f"MLX did not answer within {_PROBE_SECONDS} s."
    if done.returncode == 0:
        try:
            return msgspec.json.decode(done.stdout, type=Probed)
        except msgspec.MsgspecError:
            return "MLX gave an answer that cannot be read."
    last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
    reason = clean(last[0]).removeprefix("squish.errors.ConfigError: ") if last else f"exit code {done.returncode}"
    return f"MLX cannot be used: {reason}"


def compiler(settings: Settings) -> Iterator[Finding]:
    if platform.system() == "Darwin":
        return
    found = shutil.which("g++")
    if found:
        yield Finding("compiler", "ok", found)
    else:
        reason = "there is no g++: MLX cannot fuse kernels and is slower"
        yield Finding("compiler", "warning", reason, _COMPILER)


def packages(settings: Settings) -> Iterator[Finding]:
    yield Finding("versions", "ok", versions.summary())
    for package in versions.packages():
        if not package.fits:
            has = package.version or "not installed"
            reason = f"{package.name} is {has}; Squish needs {package.wanted}"
            mend = f"{sys.executable} -m pip install '{package.name}{package.wanted}'"
            yield Finding("versions", "broken", reason, mend)


def store(settings: Settings) -> Iterator[Finding]:
    """The installed models, what is no model, and downloads that are not complete."""
    models = Store(settings.cache_dir)
    try:
        installed, problems, partial = models.installed(), models.problems(), unfinished.find(models)
    except SquishError as error:
        yield Finding("models", "broken", error.message, error.hint)
        return
    total = size(sum(model.manifest.size for model in installed))
    if installed:
        yield Finding("models", "ok", f"{len(installed)} installed, {total}")
    else:
        yield Finding("models", "warning", "none is installed", "squish pull smollm2:135m")
    for problem in problems:
        yield Finding("models", "broken", problem.reason, _mend(problem.path))
    for model in installed:
        if changed := _changed(model):
            reason = f"{', '.join(changed)} of {model.manifest.id}: missing, or not of the size that was installed"
            yield Finding("models", "broken", reason, _mend(model.path))
    if settings.model and (missing := _missing(models, settings.model)):
        yield Finding("models", "warning", f"the setting model is {settings.model}: {missing.message}", missing.hint)
    for cut_off in partial:
        if not cut_off.busy:
            reason = f"{cut_off.id} is not complete: {size(cut_off.bytes)} so far"
            mend = f"squish pull {cut_off.id} goes on with it; squish prune deletes it"
            yield Finding("downloads", "warning", reason, mend)


def _changed(model: Installed) -> list[str]:
    """The files of a model that are not there, or not of their size. Their hashes are for `squish verify`."""
    found = []
    for file in model.manifest.files:
        try:
            right = (model.path / file.path).stat().st_size == file.size
        except OSError:
            right = False
        if not right:
            found.append(file.path)
    return found


def _mend(directory: Path) -> str:
    """What does away with a directory that is no usable model: to get it anew where its name says from where."""
    id = unfinished.model_id(directory.name)
    if id is None:
        return f"rm -r {shlex.quote(str(directory))}"
    ref = parse(id)
    if isinstance(ref, ShortName) and catalog.lookup(ref) is None:
        return f"squish rm {id}"
    return f"squish pull --force {id}, or squish rm {id}"


def _missing(models: Store, name: str) -> SquishError | None:
    try:
        models.find(name)
    except ModelNotFound as error:
        return error
    except SquishError:  # damaged, which is a finding of its own, or no name
        return None
    return None


def hub(settings: Settings) -> Iterator[Finding]:
    """Whether the Hub answers, and what it thinks of the token. Nothing is sent when Squish is offline."""
    if settings.offline:
        yield Finding("Hub", "ok", "not asked: Squish is set to offline")
        return
    import httpx2

    from squish.hub import Hub

    hub = Hub(settings)
    url = f"{settings.hub_endpoint}/api/whoami-v2"
    try:
        answer = httpx2.get(url, headers=hub.headers(), timeout=_HUB_SECONDS, follow_redirects=True)
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
        reason = clean(str(error)) or type(error).__name__
        mend = "Check the network, HTTPS_PROXY and HF_ENDPOINT; installed models work without it"
        yield Finding("Hub", "warning", f"{settings.hub_endpoint} cannot be reached: {reason}", mend)
        return
    if answer.status_code not in (200, 401, 403):
        mend = "Try again later, or check HF_ENDPOINT"
        yield Finding("Hub", "warning", f"{settings.hub_endpoint} answered {answer.status_code}", mend)
        return
    yield Finding("Hub", "ok", f"{settings.hub_endpoint} answers")
    if hub.token() is None:
        yield Finding("token", "ok", "none is set; only models with a license to accept need one")
    elif answer.status_code == 200:
        yield Finding("token", "ok", "the Hub knows it")
    else:
        yield Finding("token", "broken", "the Hub does not know this token", "hf auth login, or set HF_TOKEN")


def port(settings: Settings) -> Iterator[Finding]:
    """Whether the configured port is free, ours, or somebody else's."""
    for server in serving.servers(settings.home):
        yield Finding("server", "ok", f"a server of ours runs at {server.url}, process {server.pid}")
    if settings.port == 0:
        return
    owner = _listener(settings.port)
    ours = {server.pid for server in serving.servers(settings.home)}
    if owner is None:
        yield Finding("port", "ok", f"{settings.port} is free")
    elif owner in ours:
        yield Finding("port", "ok", f"{settings.port} is used by our server, process {owner}")
    else:
        mend = f"squish serve --port {min(settings.port + 1, 65535)}"
        yield Finding("port", "warning", f"{settings.port} is used by {_describe(owner)}", mend)


def _listener(port: int) -> int | None:
    """The process that listens on a TCP port; 0 where that cannot be known; None when nobody does."""
    try:
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port:
                return connection.pid or 0
        return None
    except psutil.AccessDenied:  # macOS tells only the administrator
        with socket.socket() as client:
            client.settimeout(1)
            return 0 if client.connect_ex(("127.0.0.1", port)) == 0 else None


def _describe(pid: int) -> str:
    try:
        return f"{psutil.Process(pid).name()}, process {pid}" if pid else "another process"
    except psutil.Error:
        return f"process {pid}"
