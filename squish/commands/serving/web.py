"""`squish web`: the full-screen chat in a browser. What is served, and how, is in web_server."""

from __future__ import annotations

from importlib.util import find_spec

import click

from squish import console
from squish.commands.completion import complete_model
from squish.config.settings import Settings
from squish.download import resolver
from squish.errors import InvalidInput

PORT = 11436


@click.command()
@click.argument("model", shell_complete=complete_model, required=False)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; others need an API key.")
@click.option("--port", type=click.IntRange(0, 65535), default=PORT, show_default=True, help="0 takes a free one.")
def web(model: str | None, host: str, port: int) -> None:
    """Show the full-screen chat in a browser on this machine.

    \b
    squish web
    squish web qwen3:8b --port 8000

    It prints an address with a token, which only this run knows; one browser window can use it at a time. At another
    address than this machine's own the API key is asked for, as the password of any user name.
    """
    if find_spec("textual_serve") is None:
        raise InvalidInput("squish web needs a package.", hint="Run: pip install textual-serve")
    from squish.commands.serving.web_server import TuiServer
    from squish.system.loopback import is_loopback

    settings = Settings.from_environment()
    key = None if is_loopback(host) else settings.api_key
    if key is None and not is_loopback(host):
        message = f"Everybody who can reach {host} could use your chats, because no API key is set."
        raise InvalidInput(message, hint="Set SQUISH_API_KEY, or leave --host out.", param="--host")
    server = TuiServer(model, host, port, key)
    resolver.run(server.run(lambda url: console.out(url)))
