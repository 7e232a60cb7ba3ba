"""The catalog: short names and where each one comes from. The data lies in catalog.toml beside this module.

A newer one, where the user has set one, is read by user_catalog.py: its entries take the place of those with their ids.
It knows neither what is installed nor how anything is fetched.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from importlib import resources
from pathlib import Path
from typing import Literal, get_args

import msgspec

from squish.config.settings import Settings, resolve
from squish.errors import ConfigError
from squish.models import user_catalog
from squish.models.user_catalog import UserEntry
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
    kv_choice: a number in the cache can have 32, 16 or 8 bits on a CPU.
    """

    layers: int
    kv_heads: int
    head: int
    hidden: int
    intermediate: int
    vocabulary: int
    window_layers: int = 0
    window: int = 0
    kv_choice: bool = False


CatalogKind = Literal["chat", "embedding", "code", "reasoning"]


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """A model that has a short name.

    id: `llama3.1:8b`; repo: `org/name` on the Hub; parameters: how many, all experts counted; bits: per weight;
    context: tokens that the model was made for; kind: what it is best at; tools: whether it can be offered functions;
    shape: None where it is not known; default: what the name without a tag means; draft: the id of a small model with
    the same tokens, which can draft for this one.
    """

    id: str
    repo: str
    parameters: int
    bits: float
    context: int
    license: str
    kind: CatalogKind = "chat"
    tools: bool = False
    shape: CacheDimensions | None = None
    default: bool = False
    package: PackageSource | None = None
    draft: str | None = None

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
    def size(self) -> int:
        """Bytes of its weights, about."""
        return int(self.parameters * self.bits / 8)

    @property
    def family(self) -> str:
        return self.id.partition(":")[0]


@dataclass(frozen=True, slots=True)
class _Catalog:
    model: tuple[CatalogEntry, ...]


def entries() -> tuple[CatalogEntry, ...]:
    """Every entry, by family, then by size; those of a newer catalog, where there is one, in place of ours.

    Raises ConfigError for a newer catalog that is wrong.
    """
    settings = resolve().settings
    place = newer_at(settings)
    if place is None or unfetched(settings) is not None:
        return own_entries()
    try:
        found = place.stat()
    except OSError as error:
        raise ConfigError(f"The catalog {place} cannot be read: {error.strerror}.", param="catalog") from error
    return _joined(place, found.st_mtime_ns, found.st_size)


def newer_at(settings: Settings) -> Path | None:
    """Where the newer catalog lies that a setting names: a file, or what was fetched from an address."""
    if not settings.catalog:
        return None
    if not is_address(settings.catalog):
        return Path(settings.catalog).expanduser().absolute()
    # What was fetched from one address is not read for another. An address may hold a password, so it names no file.
    digest = hashlib.sha256(settings.catalog.encode()).hexdigest()
    return settings.home / f"catalog-{digest[:16]}.toml"


def unfetched(settings: Settings) -> str | None:
    """What to do where an address of a catalog is set and nothing was fetched from it; None where all is well."""
    place = newer_at(settings)
    if not settings.catalog or not is_address(settings.catalog) or place is None or place.exists():
        return None
    return "The newer catalog that is set was not fetched yet: squish catalog update"


def is_address(text: str) -> bool:
    return text.startswith(("http://", "https://"))


@lru_cache(maxsize=2)
def _joined(place: Path, changed: int, size: int) -> tuple[CatalogEntry, ...]:
    """Ours and those of a file, as it was when it was changed last."""
    newer = {each.id: _entry(each) for each in user_catalog.read(place, get_args(CatalogKind))}
    defaults = {each.family for each in newer.values() if each.default}
    kept = [replace(each, default=each.default and each.family not in defaults) for each in own_entries()]
    joined = [newer.pop(each.id, each) for each in kept]
    families = list(dict.fromkeys(each.family for each in [*joined, *newer.values()]))
    return tuple(sorted([*joined, *newer.values()], key=lambda each: families.index(each.family)))


def _entry(given: UserEntry) -> CatalogEntry:
    return msgspec.convert(msgspec.to_builtins(given), CatalogEntry)


@cache
def own_entries() -> tuple[CatalogEntry, ...]:
    """The entries that come with Squish, in the file's order."""
    text = resources.files("squish.models").joinpath("catalog.toml").read_text(encoding="utf-8")
    return msgspec.convert(tomllib.loads(text), _Catalog).model


def matching(query: str) -> list[CatalogEntry]:
    """Entries whose name and repository contain every word, or the kind does; "chat" alone would be most of them."""
    words = query.lower().split()
    texts = {each.id: f"{each.id} {each.repo} {each.kind if each.kind != 'chat' else ''}".lower() for each in entries()}
    return [each for each in entries() if all(word in texts[each.id] for word in words)]


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
