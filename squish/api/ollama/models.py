"""Which models there are, and what is known of them, in Ollama's shapes.

The functions from values to Structs are pure; the routes read the store in a thread.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from squish.api.dialect import Call, WithStatus
from squish.api.ollama.requests import NamedModel
from squish.api.ollama.responses import (
    Details,
    ListedModel,
    ListedModels,
    LoadedModel,
    LoadedModels,
    ShownModel,
    Version,
)
from squish.api.ollama.translate import read_named
from squish.format import abilities
from squish.format.abilities import Abilities
from squish.format.config import text_of
from squish.generation import SamplingParams
from squish.models.manifest import Installed, Manifest, read_json
from squish.sessions.model_status import ModelStatus
from squish.system.accelerator import has_gpu

SPOKEN = "0.18.0"
"""The version of Ollama whose API this is. Programs compare it with what they need, so it is not Squish's own."""

_FOREVER = timedelta(days=290 * 365)  # as far off as Ollama puts it
_KEYS: Mapping[str, str] = {
    "embedding_length": "hidden_size",
    "block_count": "num_hidden_layers",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "vocab_size": "vocab_size",
}
"""What Ollama tells of a model, and what config.json calls it."""


async def running(call: Call) -> WithStatus:
    """GET /: what programs look for that want to know whether Ollama runs."""
    return WithStatus("Ollama is running")


async def version(call: Call) -> Version:
    """GET /api/version."""
    return Version(SPOKEN)


async def tags(call: Call) -> ListedModels:
    """GET /api/tags: the installed models that the client may use, the newest first."""
    found = await _visible(call)
    return ListedModels([listed(each) for each in sorted(found, key=lambda each: each.installed_at, reverse=True)])


async def show(call: Call) -> ShownModel:
    """POST /api/show. Raises ModelNotFound."""
    _, name = await call.read(lambda body: read_named(body, NamedModel))
    async with call.asking(name, counted=False):
        installed = await asyncio.to_thread(call.services.runtime.store.find, name)
    config = await asyncio.to_thread(read_json, installed.path / "config.json")
    able = await asyncio.to_thread(abilities.read, installed.path)
    return shown(installed, config, able, abilities.chat_template(installed.path))


async def loaded(call: Call) -> LoadedModels:
    """GET /api/ps: the models in memory that the client may use."""
    ready = [each for each in call.services.runtime.sessions.status() if each.state == "ready" and not _leaving(each)]
    manifests = {each.id: each for each in await _visible(call)}
    on_gpu = has_gpu()
    return LoadedModels([in_memory(each, manifests[each.name], on_gpu) for each in ready if each.name in manifests])


async def _visible(call: Call) -> list[Manifest]:
    """The installed models that the client may use."""
    installed = await asyncio.to_thread(call.services.runtime.store.list)
    return [each for each in installed if call.services.clients.may_see(call.key, each.id)]


def _leaving(status: ModelStatus) -> bool:
    """Whether its time is over, so that it is unloaded in this moment."""
    return status.unloads_in == 0 and not (status.running or status.waiting)


def listed(manifest: Manifest) -> ListedModel:
    """A line of the list."""
    return ListedModel(
        name=manifest.id,
        model=manifest.id,
        modified_at=manifest.installed_at,
        size=manifest.size,
        digest=digest(manifest),
        details=details(manifest),
    )


def in_memory(status: ModelStatus, manifest: Manifest, on_gpu: bool) -> LoadedModel:
    """A line of the list of loaded models."""
    left = _FOREVER if status.unloads_in is None else timedelta(seconds=status.unloads_in)
    return LoadedModel(
        name=manifest.id,
        model=manifest.id,
        size=status.weights_bytes,
        digest=digest(manifest),
        details=details(manifest),
        expires_at=datetime.now(UTC) + min(left, _FOREVER),
        size_vram=status.weights_bytes if on_gpu else 0,
        context_length=status.context_length,
    )


def shown(installed: Installed, config: Mapping[str, Any], able: Abilities, template: str | None) -> ShownModel:
    """Everything about one model."""
    manifest = installed.manifest
    parameters: dict[str, float] = {"num_ctx": manifest.context_length}
    if manifest.writes:
        defaults = SamplingParams()
        parameters |= {"temperature": defaults.temperature, "top_p": defaults.top_p}
    commands = [f"FROM {manifest.id}", *(f"PARAMETER {name} {value}" for name, value in parameters.items())]
    return ShownModel(
        license=manifest.license or "",
        modelfile="\n".join(("# What `squish show` knows of this model, in the words of a Modelfile.", *commands)),
        parameters="\n".join(f"{name:<30} {value}" for name, value in parameters.items()),
        template=template or "",
        details=details(manifest),
        model_info=_model_info(manifest, config),
        capabilities=_capabilities(able) if manifest.writes else [manifest.kind],
        modified_at=manifest.installed_at,
    )


def details(manifest: Manifest) -> Details:
    """What a list says of each model."""
    return Details(
        family=manifest.architecture,
        families=[manifest.architecture],
        parameter_size=parameter_size(manifest.parameters),
        quantization_level=manifest.quantization,
    )


def digest(manifest: Manifest) -> str:
    """One hash for all files of a model: the same files have the same one, whatever the model is called."""
    lines = (f"{file.sha256} {file.path}\n" for file in sorted(manifest.files, key=lambda file: file.path))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def parameter_size(parameters: int) -> str:
    """A number of parameters as Ollama writes it: 8.0B, 134.52M."""
    for unit, size, digits in (("B", 1e9, 1), ("M", 1e6, 2), ("K", 1e3, 0)):
        if parameters >= size:
            return f"{parameters / size:.{digits}f}{unit}"
    return str(parameters)


def _model_info(manifest: Manifest, config: Mapping[str, Any]) -> dict[str, Any]:
    kind, text = manifest.architecture, text_of(config)
    known = {name: text.get(key) for name, key in _KEYS.items()}
    sizes = {f"{kind}.{name}": value for name, value in known.items() if isinstance(value, int)}
    return {
        "general.architecture": kind,
        "general.basename": manifest.id,
        "general.parameter_count": manifest.parameters,
        f"{kind}.context_length": manifest.context_length,
    } | sizes


def _capabilities(able: Abilities) -> list[str]:
    further: Sequence[tuple[str, bool]] = (("tools", able.tools), ("thinking", able.thinking))
    return ["completion", *(name for name, can in further if can)]
