"""What is known of an installed model, for `squish show`: its manifest, its chat template, and whether it fits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from squish import figures
from squish.format import abilities
from squish.memory import fit, machine
from squish.models import drafts
from squish.models.manifest import Installed, Manifest, read_json
from squish.models.speeds import Speed
from squish.text import clean

_UNMEASURED = "chosen by the share of its squares that each matrix loses; what it matters was not measured: {}"

_CONTINUES = ": it continues text and does not chat"


@dataclass(frozen=True, slots=True)
class Description:
    """templates: the chat templates by name. largest: tokens that still fit.

    speed: what `squish bench` measured last, None before. draft: what is set to guess for it. others: ids of all models
    that are installed.
    """

    manifest: Manifest
    path: Path
    templates: Mapping[str, str]
    machine: fit.Machine
    estimate: fit.Estimate
    fits: fit.Fits
    largest: int
    kv_bits: float
    speed: Speed | None
    draft: str | None
    others: frozenset[str]


def describe(
    installed: Installed,
    context: int | None = None,
    speed: Speed | None = None,
    base: Manifest | None = None,
    kv_bits: int | None = None,
    draft: str | None = None,
    others: frozenset[str] = frozenset(),
) -> Description:
    """Read a model's directory. context: tokens of the fit; by default the usual one, or all the model has.

    base: of an adapter, the model that it changes, which is in memory with it. kv_bits: those that are set for it.
    draft, others: as a Description has them.
    """
    manifest, here = installed.manifest, replace(machine.read(), kv_bits=kv_bits)
    stored = manifest.weights + (base.weights if base else 0)
    shape = fit.shape_of(read_json(installed.path / "config.json"), (base or manifest).parameters)
    estimate = fit.estimate(shape, stored, context or min(fit.USUAL_CONTEXT, manifest.context_length), here)
    return Description(
        manifest=manifest,
        path=installed.path,
        templates=abilities.chat_templates(installed.path),
        machine=here,
        estimate=estimate,
        fits=fit.verdict(estimate, here),
        largest=fit.largest_context(shape, stored, here, manifest.context_length),
        kv_bits=8 * here.kv_width(shape),
        speed=speed,
        draft=draft,
        others=others,
    )


def lines(found: Description) -> list[tuple[str, str]]:
    """Name and value, in the order in which they are shown."""
    manifest, needs = found.manifest, found.estimate
    size = figures.size
    answer = {"yes": "fits", "tight": "fits once other programs make room", "no": "does not fit"}[found.fits]
    rows = [
        ("name", manifest.id),
        ("kind", _kind(manifest)),
        ("architecture", manifest.architecture),
        ("parameters", f"{manifest.parameters:,}"),
        ("quantization", manifest.quantization),
        *([("quality", f"{manifest.loss.label}, on the text that comes with Squish")] if manifest.loss else []),
        *([("bits", _UNMEASURED.format(manifest.unmeasured))] if manifest.unmeasured else []),
        ("on disk", _on_disk(manifest)),
        ("context", f"{manifest.context_length:,} tokens"),
        ("license", manifest.license or "not stated"),
        ("source", manifest.source + (f" at {manifest.revision[:12]}" if manifest.revision else "")),
        ("installed", f"{manifest.installed_at:%Y-%m-%d %H:%M} UTC"),
        ("directory", str(found.path)),
        ("chat template", _templates(found.templates)),
        (
            "memory",
            f"{size(needs.needed)} at {needs.context:,} tokens: weights {size(needs.weights)}, "
            f"cache {size(needs.cache)} with {found.kv_bits:g} bits a number, engine {size(needs.overhead)}",
        ),
        ("fit", f"{answer} ({size(found.machine.total)} of {found.machine.kind}, {size(found.machine.free)} free)"),
        ("", f"the longest context that fits is {found.largest:,} tokens" if found.largest else "with no context"),
        ("speed", _speed(found)),
        *([("draft", draft)] if (draft := _draft(found)) else []),
    ]
    rows += [
        ("files" if number == 0 else "", f"{file.path}  {size(file.size)}  sha256 {file.sha256[:12]}")
        for number, file in enumerate(manifest.files)
    ]
    left_out = ("chat template", "speed") if not manifest.writes else ()
    return [(name, clean(value)) for name, value in rows if name not in left_out]


def _kind(manifest: Manifest) -> str:
    if manifest.base is not None:
        return f"adapter of {manifest.base}"
    return f"{manifest.kind} model" + (_CONTINUES if manifest.kind == "completion" else "")


def _templates(templates: Mapping[str, str]) -> str:
    """`61 characters (default), tool_use, rag`: how long the one is that is used, and what others there are."""
    if not templates:
        return "none"
    first, *others = sorted(templates, key=lambda name: name != "default")
    length = f"{len(templates[first]):,} characters"
    return ", ".join([f"{length} ({first})" if others or first != "default" else length, *others])


def _on_disk(manifest: Manifest) -> str:
    """All files, and the weights among them."""
    bits = f", {manifest.bits:g} bits a weight" if manifest.bits and manifest.base is None else ""
    return f"{figures.size(manifest.size)}, of which weights {figures.size(manifest.weights)}{bits}"


def _draft(found: Description) -> str:
    """Which model guesses for it, or which one the catalog knows to guess well, and how it comes to; empty for none."""
    if found.draft and found.draft not in found.others:
        return f"{found.draft} is to draft for it, by [draft] in config.toml, and is not installed"
    if found.draft:
        return f"{found.draft} drafts for it, by [draft] in config.toml"
    if (draft := drafts.known(found.manifest)) is None:
        return ""
    first = "" if draft in found.others else f"squish pull {draft}, then "
    return f"{draft} can draft for it: {first}--draft {draft}, or [draft] in config.toml"


def _speed(found: Description) -> str:
    if (speed := found.speed) is None:
        return f"not measured; squish bench {found.manifest.id} does"
    first = f", the first token of a prompt of 512 tokens in {figures.seconds(speed.ttft)}" if speed.ttft else ""
    return f"{figures.speed(speed.decode_tps)}{first}, measured {speed.measured_at:%Y-%m-%d}"


def as_json(found: Description) -> dict[str, Any]:
    """What `show` adds to a model's manifest."""
    return {
        "directory": str(found.path),
        "draft": found.draft,
        "suggested_draft": drafts.known(found.manifest),
        "chat_template": found.templates.get("default"),
        "chat_templates": dict(found.templates),
        "files": [{"path": file.path, "size": file.size, "sha256": file.sha256} for file in found.manifest.files],
        "fit": {
            "context": found.estimate.context,
            "weights": found.estimate.weights,
            "cache": found.estimate.cache,
            "kv_bits": int(found.kv_bits),
            "overhead": found.estimate.overhead,
            "needed": found.estimate.needed,
            "memory": found.machine.kind,
            "total": found.machine.total,
            "free": found.machine.free,
            "fits": found.fits,
            "largest_context": found.largest,
        },
    }
