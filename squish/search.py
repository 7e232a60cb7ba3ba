"""The use case of finding a model: the catalog's names, then what the Hub has for MLX. It knows no terminal."""

from __future__ import annotations

from dataclasses import dataclass

from squish import catalog
from squish.config import Settings
from squish.hub import Hub


@dataclass(frozen=True, slots=True)
class Found:
    """A model that can be pulled by this name. parameters 0 and downloads None are not known."""

    name: str
    repo: str
    parameters: int
    downloads: int | None = None
    likes: int | None = None
    gated: bool = False


def in_catalog(query: str) -> list[Found]:
    """Catalog entries whose name or repository contains every word of the query."""
    words = query.lower().split()
    return [
        Found(entry.id, entry.repo, entry.parameters)
        for entry in catalog.entries()
        if all(word in f"{entry.id} {entry.repo}".lower() for word in words)
    ]


def on_hub(query: str, settings: Settings, limit: int) -> list[Found]:
    """MLX repositories of the Hub, the most downloaded first. Raises Offline, HubUnreachable, HubError; it blocks."""
    return [
        Found(model.repo_id, model.repo_id, model.parameters, model.downloads, model.likes, model.gated)
        for model in Hub(settings).search(query, limit=limit)
    ]
