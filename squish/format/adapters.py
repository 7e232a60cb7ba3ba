"""What an adapter's directory says: LoRA and DoRA as PEFT writes them, and as mlx-lm does. Pure; both processes use it.

Weights are taken from safetensors alone: a pickle runs code when it is loaded. What would change an answer and is not
computed is refused by name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from squish.errors import CorruptModel, UnsupportedModel
from squish.text import clean

CONFIG = "adapter_config.json"
PEFT_WEIGHTS, MLX_WEIGHTS = "adapter_model.safetensors", "adapters.safetensors"
LARGEST_RANK = 4096
_PICKLES = ("adapter_model.bin", "adapters.npz", "adapter_model.pt")
# Of PEFT's settings, those that ask for more than low-rank changes of linear layers.
_NOT_COMPUTED = (
    "modules_to_save", "fan_in_fan_out", "lora_bias", "trainable_token_indices", "target_parameters",
    "alora_invocation_tokens", "layer_replication", "use_qalora", "exclude_tied_modules",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class AdapterConfig:
    """layout: who wrote it. scale: what the change is multiplied by, where no pattern says otherwise; dora: a magnitude
    for each output too. base: the model that it was made for, as its maker called it.
    """

    layout: Literal["peft", "mlx"]
    weights: str
    rank: int
    scale: float
    dora: bool
    base: str | None
    root_scaled: bool = False
    ranks: tuple[tuple[str, int], ...] = ()
    alphas: tuple[tuple[str, float], ...] = ()

    def rank_of(self, module: str) -> int:
        return next((rank for pattern, rank in self.ranks if _matches(pattern, module)), self.rank)

    def scale_of(self, module: str) -> float:
        """What the change of a module is multiplied by."""
        rank = self.rank_of(module)
        alpha = next((alpha for pattern, alpha in self.alphas if _matches(pattern, module)), None)
        if self.layout == "mlx" or (alpha is None and rank == self.rank):
            return self.scale
        if alpha is None:
            alpha = self.scale * (math.sqrt(self.rank) if self.root_scaled else self.rank)
        return alpha / (math.sqrt(rank) if self.root_scaled else rank)

    @property
    def label(self) -> str:
        """For people: `LoRA, rank 8`."""
        return f"{'DoRA' if self.dora else 'LoRA'}, rank {self.rank}"


def is_adapter(names: Collection[str]) -> bool:
    """Whether files of these names are an adapter, and no model."""
    return CONFIG in names and "config.json" not in names


def read(config: Mapping[str, Any], names: Collection[str], name: str) -> AdapterConfig:
    """What the content of adapter_config.json means. names: of all files beside it; name: of the adapter, for errors.

    Raises UnsupportedModel naming the setting or the file, CorruptModel.
    """
    if "peft_type" in config:
        return _peft(config, names, name)
    if "lora_parameters" in config or "fine_tune_type" in config:
        return _mlx(config, names, name)
    raise _unsupported(name, "is neither PEFT's (peft_type) nor mlx-lm's (lora_parameters)")


def _peft(config: Mapping[str, Any], names: Collection[str], name: str) -> AdapterConfig:
    if config["peft_type"] != "LORA":
        raise _unsupported(name, f"has the peft_type {clean(str(config['peft_type']))[:40]!r}; LORA is supported")
    for key in _NOT_COMPUTED:
        if config.get(key):
            raise _unsupported(name, f"sets {key}, which is not computed: its answers would be wrong")
    if config.get("bias", "none") != "none":
        raise _unsupported(name, "sets bias, which is not computed: its answers would be wrong")
    rank, alpha = _rank(config.get("r"), "r", name), _number(config.get("lora_alpha", 8), "lora_alpha", name)
    root = config.get("use_rslora") is True
    return AdapterConfig(
        layout="peft",
        weights=_weights(PEFT_WEIGHTS, names, name),
        rank=rank,
        scale=alpha / (math.sqrt(rank) if root else rank),
        dora=config.get("use_dora") is True,
        base=_base(config.get("base_model_name_or_path")),
        root_scaled=root,
        ranks=tuple((str(key), _rank(value, "rank_pattern", name)) for key, value in _table(config, "rank_pattern")),
        alphas=tuple(
            (str(key), _number(value, "alpha_pattern", name)) for key, value in _table(config, "alpha_pattern")
        ),
    )


def _mlx(config: Mapping[str, Any], names: Collection[str], name: str) -> AdapterConfig:
    kind, given = config.get("fine_tune_type", "lora"), config.get("lora_parameters")
    if kind not in ("lora", "dora"):
        raise _unsupported(name, f"has the fine_tune_type {clean(str(kind))[:40]!r}; lora and dora are supported")
    if not isinstance(given, Mapping):
        raise _unsupported(name, "has no lora_parameters")
    return AdapterConfig(
        layout="mlx",
        weights=_weights(MLX_WEIGHTS, names, name),
        rank=_rank(given.get("rank"), "lora_parameters.rank", name),
        scale=_number(given.get("scale"), "lora_parameters.scale", name),
        dora=kind == "dora",
        base=_base(config.get("model")),
    )


def _weights(file: str, names: Collection[str], name: str) -> str:
    if file in names:
        return file
    if pickles := [each for each in _PICKLES if each in names]:
        raise UnsupportedModel(
            f"{name} has its weights in {pickles[0]}, which can run code when it is loaded.",
            hint=f"Save it as {file}.",
            param=pickles[0],
        )
    raise CorruptModel(f"{name} has no {file}.", param=file)


def _table(config: Mapping[str, Any], key: str) -> list[tuple[Any, Any]]:
    found = config.get(key) or {}
    return list(found.items()) if isinstance(found, Mapping) else []


def _rank(value: Any, key: str, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= LARGEST_RANK:
        raise _unsupported(name, f"has {clean(str(value))[:40]} as {key}; a rank from 1 to {LARGEST_RANK} is needed")
    return value


def _number(value: Any, key: str, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e6:
        raise _unsupported(name, f"has {clean(str(value))[:40]} as {key}, which is not a number that makes sense")
    return float(value)


def _base(value: Any) -> str | None:
    return clean(value)[:200] if isinstance(value, str) and value else None


def _matches(pattern: str, module: str) -> bool:
    """As PEFT matches a module's name: it ends with the pattern. A pattern is taken as it is written."""
    return module == pattern or module.endswith(f".{pattern}") or module == re.sub(r"^\^|\$$", "", pattern)


def _unsupported(name: str, what: str) -> UnsupportedModel:
    return UnsupportedModel(f"{CONFIG} of {name} {what}.", param=CONFIG)
