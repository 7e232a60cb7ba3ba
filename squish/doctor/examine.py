"""Every check, in the order of the report. Each gives findings and never raises for what it finds."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterator, Mapping

from squish.config.keys import ELSEWHERE, KEYS
from squish.config.settings import Resolved, Settings
from squish.doctor.computer import machine, packages, places
from squish.doctor.engine import engine
from squish.doctor.finding import Finding
from squish.doctor.kept import kept
from squish.doctor.models import store
from squish.doctor.network import hub, port

Check = Callable[[Settings], Iterator[Finding]]


def examine(resolved: Resolved) -> Iterator[Finding]:
    """Every finding, in the order of the report, as soon as it is known."""
    yield from config(resolved)
    checks: tuple[Check, ...] = (machine, places, engine, packages, store, kept, hub, port)
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
    yield from unknown_variables(os.environ)
    if not resolved.errors:
        yield Finding("config", "ok", str(path) if path.exists() else "no config.toml: every setting has its default")


def unknown_variables(environment: Mapping[str, str]) -> Iterator[Finding]:
    """Variables that look like settings of ours, and that nothing reads."""
    known = [*(key.variable for key in KEYS), *(name for name, _, _ in ELSEWHERE)]
    for name in sorted(environment):
        if name.startswith("SQUISH_") and name not in known:
            near = difflib.get_close_matches(name, known, 1, 0.8)
            fix = f"Did you mean {near[0]}?" if near else f"unset {name}; squish config show lists what can be set"
            yield Finding("config", "warning", f"{name} is set, but nothing reads it", fix)
