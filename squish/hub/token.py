"""The user's Hugging Face token: of HF_TOKEN, or of the file that `hf auth login` writes."""

from __future__ import annotations

import os
from pathlib import Path

from squish.config.settings import Settings


def token(settings: Settings) -> str | None:
    """The token, or None where there is none that an HTTP header can carry."""
    if settings.hf_token:
        return settings.hf_token
    try:
        text = _file().read_text(encoding="utf-8-sig").strip()
    except (OSError, ValueError):
        return None
    return text if text and text.isascii() and text.isprintable() else None


def headers(settings: Settings) -> dict[str, str]:
    """The headers of a request to the Hub, with the token. They go to no other host."""
    found = token(settings)
    return {"User-Agent": "squish"} | ({"Authorization": f"Bearer {found}"} if found else {})


def _file() -> Path:
    """Where huggingface_hub keeps it."""
    if path := os.environ.get("HF_TOKEN_PATH"):
        return Path(path).expanduser()
    if home := os.environ.get("HF_HOME"):
        return Path(home).expanduser() / "token"
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "huggingface" / "token"
