"""The health of the store: damaged models, directories that are not models, unfinished downloads."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

from squish.config.settings import Settings
from squish.doctor.finding import Finding
from squish.errors import ModelNotFound, SquishError
from squish.figures import size
from squish.models import catalog, drafts, elsewhere, unfinished
from squish.models.sharing import on_disk
from squish.models.store import Store
from squish.names import ShortName, parse


def store(settings: Settings) -> Iterator[Finding]:
    """The installed models, directories that are not models, and unfinished downloads."""
    models = Store(settings.cache_dir)
    try:
        installed, problems, partial = models.installed(), models.problems(), unfinished.find(models)
    except SquishError as error:
        yield Finding("models", "broken", error.message, error.hint)
        return
    total = size(on_disk(installed))
    if installed:
        yield Finding("models", "ok", f"{len(installed)} installed, {total}")
    else:
        yield Finding("models", "warning", "none is installed", "squish pull smollm2:135m")
    for problem in problems:
        yield Finding("models", "broken", problem.reason, _fix(problem.path))
    for model in installed:
        if model.damaged:
            reason = f"{model.damaged} of {model.manifest.id} is gone, or not of the size that was installed"
            yield Finding("models", "broken", reason, model.manifest.pull_command)
    ids = {model.manifest.id for model in installed}
    for manifest in (model.manifest for model in installed):
        if manifest.base is not None and manifest.base not in ids:
            reason = f"{manifest.id} is an adapter of {manifest.base}, which is not installed"
            yield Finding("models", "warning", reason, f"squish pull {manifest.base}, or squish rm {manifest.id}")
    yield from _moves(models)
    if settings.model and (missing := _missing(models, settings.model)):
        yield Finding("models", "warning", f"the setting model is {settings.model}: {missing.message}", missing.hint)
    yield from _drafts(models, settings, ids)
    for cut_off in partial:
        if not cut_off.busy:
            reason = f"{cut_off.id} is not complete: {size(cut_off.bytes)} so far"
            fix = f"squish pull {cut_off.id} continues it; squish prune deletes it"
            yield Finding("downloads", "warning", reason, fix)


def _drafts(models: Store, settings: Settings, ids: set[str]) -> Iterator[Finding]:
    """Entries of [draft] in config.toml for which no model, or not that one, can guess."""
    for model, name in settings.draft:
        if model not in ids:
            fix = "take the name that squish list shows"
            yield Finding("drafts", "warning", f"[draft] in config.toml has {model}, which is not installed", fix)
            continue
        try:
            drafts.chosen(models, model, name)
        except SquishError as error:
            yield Finding("drafts", "warning", error.message, error.hint)


def _moves(models: Store) -> Iterator[Finding]:
    """Moves that were cut off."""
    for name in elsewhere.unsettled(models.layout):
        id = unfinished.model_id(name) or name
        where = ", ".join(str(each.parent) for each in elsewhere.remembered(models.layout, name)[:1])
        fix = f"squish move {id} {where} continues it; squish prune deletes what it left"
        yield Finding("moves", "warning", f"a move of {id} was cut off, or runs now", fix)


def _fix(directory: Path) -> str:
    """How to get rid of a directory that is not a usable model: pull it again, if its name says from where."""
    id = unfinished.model_id(directory.name)
    if id is None:
        return f"rm -r {shlex.quote(str(directory))}"
    ref = parse(id)
    if isinstance(ref, ShortName) and catalog.lookup(ref) is None:
        return f"squish rm {id}"
    return f"squish pull --force {id}, or squish rm {id}"


def _missing(models: Store, name: str) -> SquishError | None:
    try:
        models.find(name)
    except ModelNotFound as error:
        return error
    except SquishError:  # damaged, which is a finding of its own, or no name
        return None
    return None
