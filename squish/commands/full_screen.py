"""The way into the full-screen chat: on the models of this machine, or on those of a server."""

from __future__ import annotations

import gc

from squish.config.settings import Settings


def here(model: str | None) -> int:
    gc.disable()  # until the first picture, see SquishApp: half a second of imports makes no garbage
    from squish.commands.serving.serve import serve_beside
    from squish.tui.program import run

    settings = Settings.from_environment()
    return run(settings, model or settings.model, serve=serve_beside)


def there(url: str, key_env: str | None) -> int:
    """key_env: the variable that has the server's key."""
    gc.disable()  # as above
    from squish.commands.serving.connect import address_and_key
    from squish.tui.program import run

    settings = Settings.from_environment()
    return run(settings, settings.model, connect=address_and_key(url, key_env, settings))
