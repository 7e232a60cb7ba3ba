"""`squish service`: keep `squish serve` running in the background, by what the system has for that."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import click

from squish import console
from squish.commands.serving.serve import serve
from squish.config.settings import Settings
from squish.errors import ConfigError, SquishError
from squish.system import service as services
from squish.system.host import HOST, ServiceFile
from squish.text import clean


@click.group()
def service() -> None:
    """Keep `squish serve` running in the background.

    On macOS an agent of launchd does it, on Linux a user unit of systemd. Settings come from config.toml, the key from
    a file, because neither reads the shell's variables.

    \b
    squish service install
    squish service install --api-key-file ~/.squish-key -- --port 8080
    squish service status
    squish service uninstall
    """


@service.command()
@click.option("--api-key-file", type=click.Path(path_type=Path), help="A file with the key that clients must send.")
@click.option("--print", "show", is_flag=True, help="Print the file that would be written, and change nothing.")
@click.argument("serve_options", nargs=-1, type=click.UNPROCESSED, metavar="[-- SERVE OPTIONS]")
def install(api_key_file: Path | None, show: bool, serve_options: tuple[str, ...]) -> None:
    """Start `squish serve` now and whenever you log in.

    Options after -- go to `squish serve`.

    \b
    squish service install
    squish service install --api-key-file ~/.squish-key -- --port 8080
    """
    settings = Settings.from_environment()
    if settings.api_key is not None and api_key_file is None:
        raise ConfigError(
            "SQUISH_API_KEY is set, but a service does not see it.",
            hint="Put the key into a file that only you can read, and name it: --api-key-file FILE",
            param="--api-key-file",
        )
    options = list(serve_options)
    if api_key_file is not None:
        path = api_key_file.expanduser().absolute()
        if not path.is_file():
            raise ConfigError(f"The key file {path} does not exist.", param="--api-key-file")
        options += ["--api-key-file", str(path)]
    with serve.make_context("squish serve", list(options)):
        pass  # it refuses what it does not know
    found = _service(settings, options)
    if show:
        console.out(clean(found.text).rstrip())
        return
    services.install(found)
    console.note(f"Installed {found.path}; output goes to {_log(settings)}. squish ps shows whether it runs.")


@service.command()
def uninstall() -> None:
    """Stop the service and remove it.

    squish service uninstall
    """
    found = _service(Settings.from_environment(), [])
    removed = services.uninstall(found)
    console.note(f"Removed {found.path}" if removed else "There was no service.")


@service.command()
def status() -> None:
    """Say whether the service is installed and runs. The exit code is 0 where it runs, else 1.

    squish service status
    """
    settings = Settings.from_environment()
    found = _service(settings, [])
    state = services.state(found)
    if state.running:
        console.out(f"running · {found.path} · log: {_log(settings)}")
        return
    if not state.installed:
        raise SquishError("No service is installed.", hint="Run: squish service install")
    raise SquishError(f"The service is installed but does not run: {clean(state.said)}", hint=f"Read {_log(settings)}")


def _service(settings: Settings, options: list[str]) -> ServiceFile:
    command = [sys.executable, "-P", "-m", "squish", "serve", *options]
    if any("\n" in part or "\0" in part for part in command):
        raise ConfigError(f"A service cannot be given this: {clean(shlex.join(command))}", param="serve options")
    return HOST.service(settings.home.parent, command, _log(settings))


def _log(settings: Settings) -> Path:
    return settings.home / "serve.log"
