"""The curated catalog: short names and where each one comes from. The data lies in catalog.toml beside this module.

It knows neither what is installed nor how anything is fetched.
"""

from __future__ import annotations

import difflib
import importlib.util
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

import msgspec

from squish.names import RepoName, ShortName, without_latest


@dataclass(frozen=True, slots=True)
class PackageSource:
    """A model file inside an installable Python package: the package's import name and the file in it."""

    module: str
    file: str


@dataclass(frozen=True, slots=True)
class CacheDimensions:
    """What of a model's config.json decides how much memory a conversation takes.

    layers: those whose cache holds every token; window_layers: those that see `window` tokens only; head: numbers in
    one head; intermediate: width of the feed-forward layer, of a mixture that of the experts that work at a time.
    """

    layers: int
    kv_heads: int
    head: int
    hidden: int
    intermediate: int
    vocabulary: int
    window_layers: int = 0
    window: int = 0


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """A model that has a short name.

    id: `llama3.1:8b`; repo: `org/name` on the Hub; parameters: how many, all experts counted; bits: per weight;
    context: tokens that the model was made for; shape: None where it is not known; default: what the name without a
    tag means.
    """

    id: str
    repo: str
    parameters: int
    bits: float
    context: int
    license: str
    shape: CacheDimensions | None = None
    default: bool = False
    package: PackageSource | None = None

    @property
    def ref(self) -> ShortName:
        """The id as a reference."""
        name, _, tag = self.id.partition(":")
        return ShortName(name, tag or None)

    @property
    def repo_name(self) -> RepoName:
        """The repository as a reference."""
        org, _, name = self.repo.partition("/")
        return RepoName(org, name)

    @property
    def family(self) -> str:
        return self.id.partition(":")[0]


@dataclass(frozen=True, slots=True)
class _Catalog:
    model: tuple[CatalogEntry, ...]


@cache
def entries() -> tuple[CatalogEntry, ...]:
    """Every entry, in the file's order: by family, then by size."""
    text = resources.files("squish.models").joinpath("catalog.toml").read_text(encoding="utf-8")
    return msgspec.convert(tomllib.loads(text), _Catalog).model


def lookup(ref: ShortName) -> CatalogEntry | None:
    """The entry of a short name, case ignored; without a tag, and with the tag `latest`, the family's default."""
    name, family = str(ref).lower(), str(without_latest(ref)).lower()
    for entry in entries():
        if entry.id == name or (entry.default and entry.family == family):
            return entry
    return None


def nearest(name: str, also: Iterable[str] = ()) -> list[str]:
    """Up to three names of the catalog, and of those given, that look most like a name, the closest first.

    The name itself is none of them.
    """
    known, wanted = dict.fromkeys([*also, *(entry.id for entry in entries())]), name.lower()
    by_lower = {each.lower(): each for each in known if each.lower() != wanted}
    found = difflib.get_close_matches(wanted, by_lower, n=3, cutoff=0.6)
    if len(found) < 3:
        family = wanted.partition(":")[0]
        found += [each for each in by_lower if each.partition(":")[0] == family and each not in found]
    return [by_lower[each] for each in found[:3]]


def packaged_file(source: PackageSource) -> Path | None:
    """Where the file of a package lies, without importing the package; None when it is not installed."""
    spec = importlib.util.find_spec(source.module)
    for directory in (spec.submodule_search_locations or ()) if spec is not None else ():
        path = Path(directory) / source.file
        if path.is_file():
            return path
    return None
