"""`squish doctor`: the report on the terminal, or as JSON, and its exit code."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from squish import console
from squish.config.settings import resolve

if TYPE_CHECKING:
    from squish.doctor.finding import Finding


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")
@click.option("--hosts", type=click.Path(path_type=Path), help="Look at the machines of this hosts.toml instead.")
@click.option("--model", help="With --hosts: is it there, and what would each rank hold?")
def doctor(as_json: bool, hosts: Path | None, model: str | None) -> int:
    """Find out what is wrong, and how to fix it.

    Looks at this machine, MLX, versions, the installed models, conversations and keys, the Hub, the port and the
    settings. Every line says what was found and, where something is wrong, how to fix it. Exits with 1 when something
    is broken.

    \b
    squish doctor
    squish doctor --json | jq '.[] | select(.status != "ok")'
    squish doctor --hosts hosts.toml --model qwen3:8b
    """
    from squish.doctor.finding import line

    if model is not None and hosts is None:
        raise click.UsageError("--model is for --hosts.")
    findings = []
    for finding in _shown_waiting(_examine(hosts, model)):
        findings.append(finding)
        if not as_json:
            console.out(line(finding))
    if as_json:
        console.out_json([asdict(finding) for finding in findings])
    broken = sum(finding.status == "broken" for finding in findings)
    warnings = sum(finding.status == "warning" for finding in findings)
    if broken or warnings:
        console.note(
            f"{broken} broken, {warnings} to look at." if broken else f"Nothing broken, {warnings} to look at."
        )
    else:
        console.note("Everything is fine.")
    return 1 if broken else 0


def _shown_waiting(found: Iterator[Finding]) -> Iterator[Finding]:
    """On a terminal, each is waited for with its seconds; elsewhere the lines that come say enough."""
    status = console.Status()
    with status.on_terminal("checking…"):
        for finding in found:
            status.clear()
            yield finding
            if status.is_live:
                status.wait("checking…")


def _examine(hosts: Path | None, model: str | None) -> Iterator[Finding]:
    if hosts is None:
        from squish.doctor.examine import examine

        return examine(resolve())
    from squish.doctor.hosts import check_hosts

    return check_hosts(hosts, model, resolve().settings)
