"""How a model may be compressed: what `--bits` means, how a recipe is named, and what it costs.

It knows neither the Hub nor MLX.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from squish.errors import InvalidInput
from squish.ipc.frames import Recipe
from squish.names import ModelId
from squish.text import whole

FULL = "none"
AFFINE = (2, 3, 4, 5, 6, 8)
MODES = {"mxfp4": (4, 32), "nvfp4": (4, 16), "mxfp8": (8, 32)}
MIXED = {"mixed_2_6": 2, "mixed_3_4": 3, "mixed_3_6": 3, "mixed_4_6": 4}
CHOICES = (*(str(bits) for bits in AFFINE), *MODES, *MIXED, FULL)
GROUPS = (32, 64, 128)
DEFAULT = Recipe(bits=4, group_size=64)

_TAG = re.compile(
    r"(?:(?P<bits>[2-8])bit(?:-g(?P<group>[0-9]{1,4}))?|(?P<other>[a-z0-9_]+?)(?:-g(?P<other_group>[0-9]{1,4}))?)"
    r"(?:-(?P<how>search|calibrated))?"
)


@dataclass(frozen=True, slots=True)
class CompressionOptions:
    """What a pull was asked to do with full-precision weights.

    recipe: None leaves them as they are. explicit: the user asked for it, so that doing otherwise is an error.
    text: to calibrate with, "" for the usual one.
    """

    recipe: Recipe | None = DEFAULT
    explicit: bool = False
    keep_source: bool = False
    measure: bool = False
    text: str = ""

    @property
    def compress_only_flag(self) -> str | None:
        """The option among these that makes sense only where something is compressed."""
        return "--keep-source" if self.keep_source else "--measure" if self.measure else None

    @property
    def recipe_flag(self) -> str | None:
        """The option that asked for the recipe."""
        if not self.explicit or self.recipe is None:
            return None
        return "--calibrate" if self.recipe.calibrated else "--search" if self.recipe.search else "--bits"


def recipe(bits: str, group_size: int | None = None, search: bool = False, calibrated: bool = False) -> Recipe | None:
    """The recipe of `--bits`, `--group-size`, `--search` and `--calibrate`; None for "none". Raises InvalidInput."""
    if (search or calibrated) and (bits == FULL or bits in MODES):
        problem = "--bits none compresses nothing" if bits == FULL else f"{bits} has fixed scales"
        flag, aim = ("--calibrate", "calibrate") if calibrated else ("--search", "search for")
        raise InvalidInput(f"{problem}, so there is nothing to {aim}.", param=flag)
    if search and calibrated:
        raise InvalidInput("--calibrate searches too.", hint="Leave --search out.", param="--search")
    if bits == FULL:
        if group_size is not None:
            raise InvalidInput("--bits none compresses nothing, so it has no --group-size.", param="--group-size")
        return None
    if bits in MODES:
        fixed_bits, fixed_group = MODES[bits]
        if group_size not in (None, fixed_group):
            raise InvalidInput(f"{bits} has groups of {fixed_group}.", param="--group-size")
        return Recipe(fixed_bits, fixed_group, mode=bits)
    if group_size is not None and group_size not in GROUPS:
        problem = f"Groups of {group_size} are not possible."
        raise InvalidInput(problem, hint="32, 64 and 128 are.", param="--group-size")
    group = group_size or DEFAULT.group_size
    if bits in MIXED:
        return Recipe(MIXED[bits], group, mixed=bits, search=search, calibrated=calibrated)
    if (number := whole(bits)) is not None and number in AFFINE:
        return Recipe(number, group, search=search, calibrated=calibrated)
    problem = f"--bits {bits} is not known." if bits.strip() else "--bits has no value."
    raise InvalidInput(problem, hint=f"One of: {', '.join(CHOICES)}.", param="--bits")


def tag(recipe: Recipe | None) -> str:
    """How a recipe is named behind a model's name: `8bit`, `4bit-g32`, `4bit-calibrated`, `mxfp4`, `full`."""
    if recipe is None:
        return "full"
    name = recipe.mixed or (recipe.mode if recipe.mode != "affine" else f"{recipe.bits}bit")
    usual = recipe.mode != "affine" or recipe.group_size == DEFAULT.group_size
    return (name if usual else f"{name}-g{recipe.group_size}") + _how(recipe)


def _how(recipe: Recipe) -> str:
    return "-calibrated" if recipe.calibrated else "-search" if recipe.search else ""


def from_tag(text: str | None) -> CompressionOptions | None:
    """The compression that the tag of a repository's name asks for, or None for any other tag."""
    found = _TAG.fullmatch(text.lower()) if text else None
    if found is None:
        return None
    if found["other"] == "full":
        return CompressionOptions(None, explicit=True)
    name = found["bits"] or found["other"]
    if name not in CHOICES or name == FULL or (found["other"] and name.isdigit()):
        return None
    if found["how"] and name in MODES:
        return None
    group = found["group"] or found["other_group"]
    chosen = recipe(name, int(group) if group else None, found["how"] == "search", found["how"] == "calibrated")
    return CompressionOptions(chosen, explicit=True)


def tagged(id: ModelId, suffix: str) -> ModelId:
    """The id of a model compressed in a way that has a tag: `org/repo:8bit`, `smollm2:135m-8bit`."""
    return replace(id, tag=f"{id.tag}-{suffix}" if id.tag else suffix)


def untagged(id: ModelId, suffix: str) -> ModelId:
    """The id without such a tag, where it has one."""
    if id.tag == suffix:
        return replace(id, tag=None)
    return replace(id, tag=id.tag.removesuffix(f"-{suffix}")) if id.tag else id


def matches(recipe: Recipe, config: Mapping[str, Any]) -> bool:
    """Whether a model with this config.json is compressed in this way; a mixture and a search cannot be seen."""
    found = config.get("quantization")
    if not isinstance(found, Mapping):
        return False
    mixed = len({each["bits"] for each in found.values() if isinstance(each, Mapping) and "bits" in each}) > 1
    stated = (found.get("bits"), found.get("group_size"), found.get("mode", "affine"), mixed)
    return stated == (recipe.bits, recipe.group_size, recipe.mode, recipe.mixed is not None)


def bits_per_weight(recipe: Recipe) -> float:
    """Bits that a weight takes with the scales and offsets of its group."""
    per_group = 32 if recipe.mode == "affine" else 8
    return recipe.bits + per_group / recipe.group_size


def label(recipe: Recipe) -> str:
    """A recipe for people: `4-bit (group 64)`."""
    name = recipe.mixed or (recipe.mode if recipe.mode != "affine" else f"{recipe.bits}-bit")
    how = ", calibrated" if recipe.calibrated else ", searched" if recipe.search else ""
    return f"{name} (group {recipe.group_size}{how})"


# Perplexity of SmolLM2-135M-Instruct on squish/perplexity.txt, groups of 64.
_FULL = 23.9
_MEASURED = {2: 5_824_864.0, 3: 145.3, 4: 31.3, 5: 26.8, 6: 24.2, 8: 24.0}
_SMALL = 500_000_000


def warning(recipe: Recipe, parameters: int, name: str) -> str | None:
    """What so few bits cost a model of so many parameters, in measured figures, or None where it is little.

    name: the repository, which with `:8bit` behind it is compressed like that, for every caller.
    """
    if recipe.bits <= 3:
        return (
            f"{label(recipe)} loses much: a plain {recipe.bits}-bit SmolLM2-135M has a perplexity of "
            f"{_MEASURED[recipe.bits]:,.0f} where 4 bits have {_MEASURED[4]:.0f} and full precision has {_FULL:.0f}. "
            f"Large models lose less; {name}:4bit, or more, loses little."
        )
    if recipe.bits < 6 and parameters < _SMALL:
        return (
            f"A model as small as this loses much at {recipe.bits} bits: SmolLM2-135M has a perplexity of "
            f"{_MEASURED[recipe.bits]} there, {_MEASURED[6]} at 6 bits and {_FULL} with full precision. "
            f"{name}:6bit, or :8bit, keeps it."
        )
    return None
