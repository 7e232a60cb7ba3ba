"""The user's Hugging Face token: of HF_TOKEN, or of the file that `hf auth login` writes."""

from __future__ import annotations

from squish.config.settings import Settings
from squish.hub.library import USER_AGENT, prepare


def token(settings: Settings) -> str | None:
    """The token, or None where there is none that an HTTP header can carry."""
    if settings.hf_token:
        return settings.hf_token
    prepare()
    from huggingface_hub import get_token
    from huggingface_hub.errors import OIDCError

    try:
        text = get_token()
    except (OSError, ValueError, OIDCError):
        return None
    text = (text or "").removeprefix("\ufeff")
    return text if text and text.isascii() and text.isprintable() else None


def headers(settings: Settings) -> dict[str, str]:
    """The headers of a request to the Hub, with the token. They go to no other host."""
    found = token(settings)
    return {"User-Agent": USER_AGENT} | ({"Authorization": f"Bearer {found}"} if found else {})
