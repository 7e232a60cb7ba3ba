"""Every check, in the order of the report. Each gives findings and never raises for what it finds."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from squish.config.settings import Resolved, Settings
from squish.doctor.computer import compiler, machine, packages, places
from squish.doctor.engine import engine
from squish.doctor.finding import Finding
from squish.doctor.models import store
from squish.doctor.network import hub, port

Check = Callable[[Settings], Iterator[Finding]]


def examine(resolved: Resolved) -> Iterator[Finding]:
    """Every finding, in the order of the report, as soon as it is known."""
    yield from config(resolved)
    checks: tuple[Check, ...] = (machine, places, engine, compiler, packages, store, hub, port)
    for check in checks:
        yield from check(resolved.settings)


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
