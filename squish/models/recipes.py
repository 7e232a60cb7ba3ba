"""How a model may be compressed: what `--bits` means, how a recipe is named, and what it costs.

It knows neither the Hub nor MLX.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec.structs import replace
from msgspec.structs import replace as replace_struct

from squish.errors import InvalidInput
from squish.ipc.frames import Recipe
from squish.names import ModelId
from squish.text import whole

FULL = "none"
AFFINE = (2, 3, 4, 5, 6, 8)
MODES = {"mxfp4": (4, 32), "nvfp4": (4, 16), "mxfp8": (8, 32)}
MIXED = {"mixed_2_6": 2, "mixed_3_4": 3, "mixed_3_6": 3, "mixed_4_6": 4}
FIT = "fit"
CHOICES = (*(str(bits) for bits in AFFINE), *MODES, *MIXED, FIT, FULL)
GROUPS = (32, 64, 128)
DEFAULT = Recipe(bits=4, group_size=64)
# Bits a weight that may be asked for as a size: 2 and 8 bits in groups of 64, with their scales.
SMALLEST, LARGEST = 2.5, 8.5

_SIZE = re.compile(r"[0-9]{1,2}(?:\.[0-9]{1,2})?")
_TAG = re.compile(
    r"(?:(?P<size>[0-9](?:\.[0-9]{1,2})?)bpw|(?P<bits>[2-8])bit(?:-g(?P<group>[0-9]{1,4}))?|(?P<other>[a-z0-9_]+?)(?:-g(?P<other_group>[0-9]{1,4}))?)"
    r"(?:-(?P<how>search|calibrated))?"
)


class CompressionOptions(msgspec.Struct, frozen=True):
    """What a pull was asked to do with full-precision weights.

    recipe: None leaves them as they are. explicit: the user asked for it, so that doing otherwise is an error.
    text: to calibrate with, "" for the usual one. context: tokens for which the model is to fit, None for the usual.
    """

    recipe: Recipe | None = DEFAULT
    explicit: bool = False
    keep_source: bool = False
    measure: bool = False
    text: str = ""
    context: int | None = None

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
    if bits == FIT or _is_size(bits):
        return _mixture(bits, group_size, search, calibrated)
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
    hint = f"One of: {', '.join(CHOICES)}; or bits a weight, as 4.5."
    raise InvalidInput(problem, hint=hint, param="--bits")


def _is_size(bits: str) -> bool:
    """Whether it is a number of bits a weight, and not that of one of the plain recipes."""
    return bool(_SIZE.fullmatch(bits)) and not (bits.isdecimal() and int(bits) in AFFINE)


def _mixture(bits: str, group_size: int | None, search: bool, calibrated: bool) -> Recipe:
    """The recipe that chooses bits matrix by matrix to meet a size."""
    if group_size is not None or search:
        flag, what = ("--search", "searches already") if search else ("--group-size", "chooses its groups itself")
        raise InvalidInput(f"--bits {bits} {what}.", hint=f"Leave {flag} out.", param=flag)
    mixture = replace_struct(DEFAULT, calibrated=calibrated)
    if bits == FIT:
        return replace_struct(mixture, fit=True)
    return sized(mixture, float(bits))


def sized(recipe: Recipe, size: float) -> Recipe:
    """The recipe that meets so many bits a weight. Raises InvalidInput."""
    if not SMALLEST <= size <= LARGEST:
        problem = f"{size:g} bits a weight are not possible: with their scales they are {SMALLEST} to {LARGEST}."
        raise InvalidInput(problem, hint="--bits 2 and --bits 8 are the smallest and the largest.", param="--bits")
    return replace_struct(recipe, size=size, fit=False)


def tag(recipe: Recipe | None) -> str:
    """How a recipe is named behind a model's name: `8bit`, `4bit-g32`, `4.5bpw-calibrated`, `mxfp4`, `full`."""
    if recipe is None:
        return "full"
    if recipe.fit or recipe.size is not None:
        return (FIT if recipe.size is None else f"{recipe.size:g}bpw") + _how(recipe)
    name = recipe.mixed or (recipe.mode if recipe.mode != "affine" else f"{recipe.bits}bit")
    usual = recipe.mode != "affine" or recipe.group_size == DEFAULT.group_size
    return (name if usual else f"{name}-g{recipe.group_size}") + _how(recipe)


def _how(recipe: Recipe) -> str:
    return "-calibrated" if recipe.calibrated else "-search" if recipe.search else ""


def flags(tag: str) -> str:
    """The options of `squish pull` that mean a tag: ` --bits 4.5 --calibrate`."""
    found = _TAG.fullmatch(tag)
    assert found is not None, tag
    group = found["group"] or found["other_group"]
    how = {"search": " --search", "calibrated": " --calibrate"}.get(found["how"] or "", "")
    size = f"{float(found['size'])}" if found["size"] else None
    return f" --bits {size or found['bits'] or found['other']}" + (f" --group-size {group}" if group else "") + how


def from_tag(text: str | None) -> CompressionOptions | None:
    """The compression that the tag of a repository's name asks for, or None for any other tag."""
    found = _TAG.fullmatch(text.lower()) if text else None
    if found is None:
        return None
    if found["other"] == "full":
        return CompressionOptions(None, explicit=True)
    calibrated = found["how"] == "calibrated"
    if found["size"] or (found["other"] == FIT and not found["other_group"]):
        possible = not found["size"] or SMALLEST <= float(found["size"]) <= LARGEST
        if found["how"] == "search" or not possible:
            return None
        return CompressionOptions(_mixture(found["size"] or FIT, None, False, calibrated), explicit=True)
    name = found["bits"] or found["other"]
    if name not in CHOICES or name in (FULL, FIT) or (found["other"] and name.isdigit()):
        return None
    if found["how"] and name in MODES:
        return None
    group = found["group"] or found["other_group"]
    chosen = recipe(name, int(group) if group else None, found["how"] == "search", calibrated)
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
    if recipe.size is not None:
        return recipe.size
    return with_scales(recipe.bits, recipe.group_size, recipe.mode)


def with_scales(bits: int, group_size: int, mode: str) -> float:
    """Bits of a weight and of its share of what its group has: a scale, and for integers an offset."""
    return bits + (32 if mode == "affine" else 8) / group_size


def label(recipe: Recipe) -> str:
    """A recipe for people: `4-bit (group 64)`, `4.5 bits a weight, mixed`."""
    if recipe.size is not None:
        return f"{recipe.size:g} bits a weight, mixed" + (", calibrated" if recipe.calibrated else "")
    name = recipe.mixed or (recipe.mode if recipe.mode != "affine" else f"{recipe.bits}-bit")
    how = ", calibrated" if recipe.calibrated else ", searched" if recipe.search else ""
    return f"{name} (group {recipe.group_size}{how})"


# Perplexity of SmolLM2-135M-Instruct on squish/perplexity.txt, groups of 64.
_FULL = 23.9
_MEASURED = {2: 5_824_864.0, 3: 145.3, 4: 31.3, 5: 26.8, 6: 24.2, 8: 24.0}
_SMALL = 500_000_000


def warning(recipe: Recipe, parameters: int, name: str | None) -> str | None:
    """What so few bits cost a model of so many parameters, in measured figures, or None where it is little.

    name: the repository, which with `:8bit` behind it is compressed like that, for every caller; None for a directory.
    """
    bits, many, more = recipe.bits, (f"{name}:4bit", f"{name}:6bit"), ":8bit"
    if name is None:
        many, more = ("--bits 4", "--bits 6"), "8"
    if recipe.size is not None:
        bits = max(each for each in AFFINE if each + SMALLEST - AFFINE[0] <= recipe.size)
    if bits <= 3:
        return (
            f"{label(recipe)} loses much: a plain {bits}-bit SmolLM2-135M has a perplexity of "
            f"{_MEASURED[bits]:,.0f} where 4 bits have {_MEASURED[4]:.0f} and full precision has {_FULL:.0f}. "
            f"Large models lose less; {many[0]}, or more, loses little."
        )
    if bits < 6 and parameters < _SMALL:
        return (
            f"A model as small as this loses much at {bits} bits: SmolLM2-135M has a perplexity of "
            f"{_MEASURED[bits]} there, {_MEASURED[6]} at 6 bits and {_FULL} with full precision. "
            f"{many[1]}, or {more}, keeps it."
        )
    return None
