"""Settings: what the user can set, where it comes from, and where Squish keeps its files.

Defaults < environment < flags. Knows nothing of models, servers or screens.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from squish.errors import ConfigError

DEFAULT_PORT = 11435
DEFAULT_ENDPOINT = "https://huggingface.co"


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that can be set. Secrets are hidden in repr.

    keep_alive: seconds an idle model stays loaded; negative is for ever.
    max_queue: requests that may wait per model; max_concurrency: rows that one model decodes at the same time.
    """

    home: Path
    cache_dir: Path
    offline: bool = False
    debug: bool = False
    hub_endpoint: str = DEFAULT_ENDPOINT
    hf_token: str | None = field(default=None, repr=False)
    api_key: str | None = field(default=None, repr=False)
    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    keep_alive: float = 300.0
    max_queue: int = 64
    max_concurrency: int = 32

    @property
    def worker_cache(self) -> Path:
        """Where workers keep what they compile."""
        return self.home / "cache"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Settings:
        """Settings of the environment (os.environ by default). Raises ConfigError naming the variable."""
        env = os.environ if environment is None else environment
        home = Path(env.get("HOME") or Path.home()) / ".squish"
        cache = env.get("SQUISH_CACHE_DIR")
        return cls(
            home=home,
            cache_dir=Path(cache).expanduser().absolute() if cache else home / "models",
            offline=_flag(env, "SQUISH_OFFLINE"),
            debug=_flag(env, "SQUISH_DEBUG"),
            hub_endpoint=(env.get("HF_ENDPOINT") or DEFAULT_ENDPOINT).rstrip("/"),
            hf_token=env.get("HF_TOKEN") or None,
            api_key=_key(env.get("SQUISH_API_KEY"), "SQUISH_API_KEY"),
        )


def _flag(env: Mapping[str, str], name: str) -> bool:
    value = env.get(name, "").strip().lower()
    if value in ("", "0", "false", "no", "off"):
        return False
    if value in ("1", "true", "yes", "on"):
        return True
    raise ConfigError(f"{name} is {value!r}.", hint=f"Set {name} to 1 or 0.", param=name)


def _key(value: str | None, name: str) -> str | None:
    """A key that can stand in an HTTP header, or None where none is set."""
    if not value or not value.strip():
        return None
    if not value.strip().isascii() or not value.strip().isprintable():
        raise ConfigError(f"{name} has characters that no HTTP header can carry.", hint="Use plain ASCII.", param=name)
    return value.strip()
