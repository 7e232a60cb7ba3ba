"""Drafts that the catalog knows: which small model can guess for a large one, and when to say so."""

from __future__ import annotations

from collections.abc import Iterable

from squish.models import catalog
from squish.models.manifest import Manifest


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
