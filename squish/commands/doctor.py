"""`squish doctor`: the report on the terminal, or as JSON, and its exit code."""

from __future__ import annotations

from dataclasses import asdict

import click

from squish import console
from squish.config.settings import resolve


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")
def doctor(as_json: bool) -> int:
    """Find out what is wrong, and how to fix it.

    Looks at this machine, MLX, versions, the installed models, the Hub, the port and the settings. Every line says
    what was found and, where something is wrong, how to fix it. Exits with 1 when something is broken.

    \b
    squish doctor
    squish doctor --json | jq '.[] | select(.status != "ok")'
    """
    from squish.doctor.examine import examine
    from squish.doctor.finding import line

    findings = []
    for finding in examine(resolve()):
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
        console.note("Everything is well.")
    return 1 if broken else 0
