"""Which small model guesses for a large one: the drafts that the catalog knows, and those that a user has chosen."""

from __future__ import annotations

from collections.abc import Iterable

from squish.errors import ConfigError, ModelNotFound
from squish.models import catalog
from squish.models.manifest import Installed, Manifest
from squish.models.store import Store


def chosen(store: Store, model: str, name: str) -> Installed:
    """The draft of this name for a model, by its id. Raises ConfigError for one that is not here or cannot be it."""
    try:
        draft = store.find(name)
    except ModelNotFound as error:
        raise ConfigError(
            f"The draft model of {model}, {name}, is not installed.",
            hint=f"Pull it (squish pull {name}), or start without it: --draft, or [draft] in config.toml.",
            param="draft",
        ) from error
    if draft.manifest.id == model or not draft.manifest.writes:
        kind = "a reranking" if draft.manifest.kind == "rerank" else "an embedding"
        reason = "it is that model" if draft.manifest.id == model else f"it is {kind} model and generates no text"
        raise ConfigError(
            f"{name} cannot be the draft model of {model}: {reason}.",
            hint="Choose another one: --draft, or [draft] in config.toml.",
            param="draft",
        )
    return draft


def known(model: Manifest) -> str | None:
    """The id of the catalog's draft for a model: by its name, or by where it is from if it has another one.

    Raises ConfigError for a newer catalog that is wrong.
    """
    for entry in catalog.entries():
        if model.id == entry.id or model.source == f"hub:{entry.repo}":
            return entry.draft
    return None


def unused(model: Manifest, installed: Iterable[Manifest], set_for: Iterable[str]) -> str | None:
    """The same where that draft is here and none guesses for the model. set_for: ids of models that have a draft.

    Raises ConfigError.
    """
    draft = known(model)
    return draft if model.id not in set_for and any(draft == each.id for each in installed) else None
