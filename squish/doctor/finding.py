"""One line of the report of `squish doctor`. Secrets are never part of one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from squish.text import clean

_MARKS = {"ok": "ok", "warning": "!", "broken": "BROKEN"}

Status = Literal["ok", "warning", "broken"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report. reason: what was found; fix: the command, or the step, that fixes it."""

    topic: str
    status: Status
    reason: str
    fix: str | None = None


def line(finding: Finding) -> str:
    """One finding for people."""
    fix = f"\n{'':21}→ {clean(finding.fix)}" if finding.fix else ""
    return f"{_MARKS[finding.status]:7} {finding.topic:12} {clean(finding.reason)}{fix}"
