"""The commands about models that are installed: list, show, cp, rm, move, verify, prune.

Bodies are short, and imports stand inside them, so that a command pays for its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from squish import console, figures
from squish.commands.completion import complete_model
from squish.commands.flags import Whole
from squish.config.settings import Settings
from squish.errors import CorruptModel, InvalidInput, SquishError
from squish.memory.fit import USUAL_CONTEXT

if TYPE_CHECKING:
    from squish.models.manifest import Installed, Manifest
    from squish.models.sharing import Shared
    from squish.models.speeds import Speed
    from squish.models.store import Store


@click.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")
def list_models(as_json: bool) -> None:
    """List installed models.

    SHARED is what other models have too and is stored once; TOK/S the speed that `squish bench` measured last.

    \b
    squish list
    squish list --json | jq -r '.[].id'
    """
    from squish.models import sharing
    from squish.models.speeds import speeds

    store = _store()
    models = store.installed()
    common = sharing.shared(models)
    measured = speeds(Settings.from_environment().home)
    _note_damage(store, models)
    if as_json:
        console.out_json(
            [
                _listed_json(each, common.get(each.manifest.id)) | _speed(measured.get(each.manifest.id))
                for each in models
            ]
        )
        return
    if not models:
        console.note(
            "No models are installed. Try: squish pull smollm2:135m; `squish import` lists those of other programs."
        )
        return
    rows = [
        (
            model.id,
            model.kind,
            figures.size(model.size),
            figures.size(common[model.id].bytes) if model.id in common else "",
            "damaged" if each.damaged else model.quantization,
            f"{model.context_length:,}",
            f"{measured[model.id].decode_tps:.1f}" if model.id in measured else "",
            f"{model.installed_at:%Y-%m-%d}",
        )
        for each in models
        for model in [each.manifest]
    ]
    headers = ("NAME", "KIND", "SIZE", "SHARED", "QUANTIZATION", "CONTEXT", "TOK/S", "INSTALLED")
    console.table(headers, rows, right=frozenset({2, 3, 5, 6}))


def _note_damage(store: Store, models: Sequence[Installed]) -> None:
    for problem in store.problems():
        console.note(f"squish: {problem.reason}")
    for each in models:
        if each.damaged:
            model = each.manifest
            console.note(f"squish: {each.damaged} of {model.id} is missing or damaged. Run: {model.pull_command}")


def _speed(measured: Speed | None) -> dict[str, float | None]:
    return {"decode_tokens_per_s": measured.decode_tps if measured else None}


@click.command()
@click.argument("model", shell_complete=complete_model)
@click.option(
    "--context",
    type=Whole(1),
    help=f"Context length, in tokens, for which to check the fit.  [default: {USUAL_CONTEXT}, or the model's]",
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def show(model: str, context: int | None, as_json: bool) -> None:
    """Show what is known about an installed model.

    Also whether it fits this machine, and with how long a context.

    \b
    squish show smollm2:135m
    squish show smollm2:135m --context 8192
    """
    from squish.commands.models import describe
    from squish.commands.serving.draft import installed_id
    from squish.config.model_defaults import kv_bits_of
    from squish.models.speeds import speeds

    store = _store()
    installed = store.find(model)
    models = store.list()
    base = next((each for each in models if each.id == installed.manifest.base), None)
    settings = Settings.from_environment()
    speed = speeds(settings.home).get(installed.manifest.id)
    kv_bits = kv_bits_of(settings, (base or installed.manifest).id)
    draft, others = dict(settings.draft).get(installed.manifest.id), frozenset(each.id for each in models)
    draft = draft and installed_id(store, draft)
    found = describe.describe(installed, context, speed, base, kv_bits, draft, others)
    if as_json:
        console.out_json(_as_json(found.manifest) | _speed(speed) | describe.as_json(found))
        return
    for name, value in describe.lines(found):
        console.out(f"{name:<14}{value}")


@click.command("cp")
@click.argument("model", shell_complete=complete_model)
@click.argument("name")
def copy(model: str, name: str) -> None:
    """Install a model under a second name. The files are shared.

    \b
    squish cp smollm2:135m mine:latest
    """
    installed = _store().copy(model, name)
    console.note(f"{installed.manifest.id} is {model} under another name.")


@click.command("rm")
@click.argument("models", nargs=-1, required=True, shell_complete=complete_model)
@click.option("--force", is_flag=True, help="Also while a running Squish has it loaded.")
def remove(models: tuple[str, ...], force: bool) -> None:
    """Delete installed models. What others share with them stays.

    \b
    squish rm smollm2:135m
    """
    from squish.models import sharing

    store = _store()
    for model in models:
        target = store.link_target(model)
        common = sharing.shared(store.installed()).get(store.id_to_remove(model))
        freed = store.remove(model, force=force)
        if target is None:
            rest = f"; {figures.size(common.bytes)} stay, which {_who_share(common.others)}" if common else ""
            console.note(f"{model} is deleted: {figures.size(freed)} freed{rest}.")
        else:
            console.note(f"{model} was a link, and the link is deleted. Its files stay in {target}.")


@click.command()
@click.argument("models", nargs=-1, shell_complete=complete_model)
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--all", "everything", is_flag=True, help="Every installed model.")
@click.option("--force", is_flag=True, help="Also while a running Squish has it loaded.")
def move(models: tuple[str, ...], directory: Path, everything: bool, force: bool) -> None:
    """Move models to another disk, or back.

    They are used and deleted as before; the store keeps a link. After Ctrl-C, a kill or a power cut a model is whole in
    the old place or the new one, and the same command goes on.

    \b
    squish move llama3.1:8b /Volumes/Big/models
    squish move --all /mnt/models
    squish move llama3.1:8b ~/.squish/models
    """
    from squish.commands.models.move import move_shown

    store = _store()
    if everything == bool(models):
        problem = "Name models, or say --all." if models else "No model is named."
        raise InvalidInput(problem, hint="squish move llama3.1:8b /Volumes/Big/models", param="models")
    for id in models or [manifest.id for manifest in store.list()]:
        move_shown(store, id, directory, force=force)


@click.command()
@click.argument("models", nargs=-1, shell_complete=complete_model)
def verify(models: tuple[str, ...]) -> int:
    """Compare every file of the models with its hash.

    Without a name, all models are checked.

    \b
    squish verify
    squish verify smollm2:135m
    """
    store = _store()
    failed: list[SquishError] = []
    for id in models or [manifest.id for manifest in store.list()]:
        try:
            store.verify(id)
            console.out(f"{id}  ok")
        except CorruptModel as error:
            failed.append(error)
            console.out(f"{id}  damaged")
            console.error(error)
    for problem in () if models else store.problems():
        failed.append(CorruptModel(problem.reason))
        console.error(failed[-1])
    return 1 if failed else 0


@click.command()
def prune() -> None:
    """Delete what unfinished downloads and moves left.

    Files that models have in common are stored once from then on.

    \b
    squish prune
    """
    from squish.models import unfinished

    store = _store()
    freed = unfinished.prune(store)
    for name, size in freed:
        console.note(f"{name}: {figures.size(size)} of an unfinished download deleted.")
    if saved := unfinished.share(store):
        console.note(f"{figures.size(saved)} were stored twice, and are stored once now.")
    if not freed and not saved:
        console.note("Nothing to delete.")


def _as_json(model: Manifest) -> dict[str, Any]:
    return {
        "id": model.id,
        "kind": model.kind,
        "size": model.size,
        "quantization": model.quantization,
        "architecture": model.architecture,
        "parameters": model.parameters,
        "context_length": model.context_length,
        "source": model.source,
        "revision": model.revision,
        "license": model.license,
        "base": model.base,
        "loss": msgspec.to_builtins(model.loss),
        "unmeasured": model.unmeasured,
        "installed_at": model.installed_at.isoformat(),
    }


def _listed_json(installed: Installed, common: Shared | None) -> dict[str, Any]:
    return _as_json(installed.manifest) | {
        "damaged": installed.damaged is not None,
        "directory": str(installed.path.resolve()),
        "shared": common.bytes if common else 0,
        "shared_with": list(common.others) if common else [],
    }


def _who_share(names: tuple[str, ...]) -> str:
    return f"{_and(names)} {'shares' if len(names) == 1 else 'share'}"


def _and(names: tuple[str, ...]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]


def _store() -> Store:
    from squish.models.store import Store

    return Store(Settings.from_environment().cache_dir)
