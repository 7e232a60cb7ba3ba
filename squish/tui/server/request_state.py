"""The symbol, the word and the color of what a request is doing, the same wherever it is shown."""

from __future__ import annotations

from squish.sessions.activity import RequestState

STATES: dict[RequestState, tuple[str, str]] = {
    "queued": ("◌ queued", "text-warning"),
    "loading": ("◌ loading", "text-warning"),
    "prefill": ("◐ prefill", "text-secondary"),
    "writing": ("▶ writing", "text-primary"),
    "done": ("✓ done", "foreground-muted"),
    "stopped": ("■ stopped", "text-warning"),
    "failed": ("✕ failed", "text-error"),
}
