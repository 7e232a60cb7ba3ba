"""`squish serve` as a service of one user: written, started, stopped and asked about with the system's tools."""

from __future__ import annotations

import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass

from squish.errors import SquishError
from squish.files import write_whole
from squish.system.host import ServiceFile

_SECONDS = 60


@dataclass(frozen=True, slots=True)
class ServiceState:
    """installed: its file is there. running: the system says so. said: a line of what the system said."""

    installed: bool
    running: bool
    said: str


def install(service: ServiceFile) -> None:
    """Write the file and start the service; one that runs is replaced. Raises SquishError with what the system said."""
    replaced = service.path.exists()
    try:
        if replaced:
            for command in service.stop:
                _run(command)
        for each in (service.path, service.log):  # neither system makes the log's, and nothing starts without it
            each.parent.mkdir(parents=True, exist_ok=True)
        write_whole(service.path, service.text)
    except OSError as error:
        raise SquishError(f"{error.filename or service.path} cannot be written: {error.strerror}.") from error
    for command in service.start:
        try:
            ended = _started(command, service.patience if replaced else 1)
        except SquishError:  # nothing here can use the file
            service.path.unlink(missing_ok=True)
            raise
        if ended.returncode:
            raise SquishError(
                f"{' '.join(command)} failed: {_first_line(ended)}",
                hint=f"The service is described in {service.path}; squish service uninstall removes it.",
            )


def uninstall(service: ServiceFile) -> bool:
    """Stop the service and remove its file; False where there was none."""
    if not service.path.exists():
        return False
    for command in service.stop:
        with suppress(SquishError):  # without the system's tool nothing runs, and the file must be removable
            _run(command)
    try:
        service.path.unlink(missing_ok=True)
    except OSError as error:
        raise SquishError(f"{service.path} cannot be removed: {error.strerror}.") from error
    return True


def state(service: ServiceFile) -> ServiceState:
    """What is known of the service now."""
    ended = _run(service.state)
    installed, lines = service.path.exists(), [line.strip() for line in ended.stdout.splitlines()]
    if ended.returncode or not service.runs or service.runs in lines:
        return ServiceState(installed, ended.returncode == 0, _first_line(ended))
    said = next((line for line in lines if line.startswith(service.why)), _first_line(ended))
    return ServiceState(installed, running=False, said=said)


def _started(command: tuple[str, ...], tries: int) -> subprocess.CompletedProcess[str]:
    """What starting says, tried once a second."""
    for _ in range(tries - 1):
        if not (ended := _run(command)).returncode:
            return ended
        time.sleep(1)
    return _run(command)


def _run(command: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except FileNotFoundError:
        raise SquishError(
            f"{command[0]} is not on this machine, so there is nothing to keep a service running.",
            hint="Start `squish serve` from whatever starts your programs here.",
        ) from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SquishError(f"{' '.join(command)} did not work: {error}.") from error


def _first_line(ended: subprocess.CompletedProcess[str]) -> str:
    lines = (ended.stderr.strip() or ended.stdout.strip()).splitlines()
    return lines[0] if lines else f"exit code {ended.returncode}"
