"""keys.toml: the keys that clients of a server can have, a table each. A key itself is never kept, only its hash.

It knows no HTTP. A key is 256 random bits, so a plain hash of it cannot be turned around.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import tomllib
from collections.abc import Callable
from contextlib import suppress
from datetime import date
from pathlib import Path

import msgspec
import tomli_w

from squish.errors import ConfigError, InvalidInput, SquishError
from squish.files import NoLocks, lock, read_regular, write_whole
from squish.text import clean

_LARGEST = 1 << 20  # bytes
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class ApiKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A client's key. hash: SHA-256 in hex. models: those that it may use; none named is all of them.

    requests_per_minute, concurrent_requests: unlimited where None. background: its requests go behind
    those that somebody waits for.
    """

    name: str = ""
    hash: str
    created: date | None = None
    models: tuple[str, ...] = ()
    requests_per_minute: int | None = None
    concurrent_requests: int | None = None
    background: bool = False


class KeyFile:
    """The keys of a home, read again when the file has changed."""

    def __init__(self, home: Path) -> None:
        self.path = home / "keys.toml"
        self._home = home
        self._seen: tuple[int, ...] | None = None
        self._keys: dict[str, ApiKey] = {}

    def keys(self) -> dict[str, ApiKey]:
        """By hash. Raises ConfigError naming what is wrong in the file; the next call then has those from before."""
        try:
            found = self.path.stat()
        except FileNotFoundError:
            self._seen, self._keys = None, {}
            return self._keys
        except OSError as error:
            if self._seen == (error.errno,):
                return self._keys
            self._seen = (error.errno or 0,)
            raise ConfigError(f"{self.path} cannot be read: {error.strerror}.") from error
        state = (found.st_mtime_ns, found.st_size, found.st_ino)
        if state != self._seen:
            self._seen = state
            self._keys = {key.hash: key for key in self._read()}
        return self._keys

    def find(self, key: str) -> ApiKey | None:
        """Whose key it is. Raises ConfigError, as `keys`."""
        return self.keys().get(hash_of(key))

    def add(self, key: ApiKey) -> str:
        """Keep a new key under its name; its hash is set here. The key, which is nowhere afterwards.

        Raises InvalidInput for a name that is taken or is none, and ConfigError.
        """
        if not _NAME.fullmatch(key.name):
            hint = "A name has up to 64 letters, digits, dots and dashes."
            raise InvalidInput(f"{key.name[:80]!r} cannot be the name of a key.", hint=hint, param="NAME")
        secret = f"sk-squish-{secrets.token_urlsafe(32)}"
        with _Locked(self._home):
            keys = self._read()
            if any(each.name == key.name for each in keys):
                hint = f"squish keys remove {key.name} takes it away."
                raise InvalidInput(f"There is a key {key.name} already.", hint=hint, param="NAME")
            self._write([*keys, msgspec.structs.replace(key, hash=hash_of(secret))])
        return secret

    def remove(self, name: str) -> bool:
        """Whether there are others. Raises InvalidInput when there is none of this name, and ConfigError."""
        with _Locked(self._home):
            keys = self._read()
            if not any(each.name == name for each in keys):
                raise InvalidInput(f"There is no key {name[:80]!r}.", hint="squish keys list", param="NAME")
            self._write(left := [each for each in keys if each.name != name])
        return bool(left)

    def _read(self) -> list[ApiKey]:
        try:
            tables = tomllib.loads(read_regular(self.path, _LARGEST, follow=True).decode())
        except FileNotFoundError:
            return []
        except OSError as error:
            raise ConfigError(f"{self.path} cannot be read: {error.strerror}.") from error
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"{self.path} is not valid TOML: {error}.") from None
        except (UnicodeDecodeError, RecursionError):
            raise ConfigError(f"{self.path} is not a TOML file in UTF-8.") from None
        found: dict[str, ApiKey] = {}
        for name, table in tables.items():
            key = self._decoded(name, table)
            if (first := found.setdefault(key.hash, key)) is not key:
                raise ConfigError(f"{self.path}, [{name}]: hash is that of [{first.name}] too.")
        return list(found.values())

    def _decoded(self, name: str, table: object) -> ApiKey:
        if what := _problem(name, table):
            hint = "docs/keys.md shows one; squish keys add writes it."
            raise ConfigError(f"{self.path}, [{clean(name)[:80]}]: {what}.", hint=hint)
        return msgspec.structs.replace(msgspec.convert(table, ApiKey), name=name)

    def _write(self, keys: list[ApiKey]) -> None:
        tables = {}
        for key in keys:
            fields = msgspec.structs.asdict(key) | {"models": list(key.models)}
            name = fields.pop("name")
            tables[name] = {field: value for field, value in fields.items() if value not in (None, [], False)}
        try:
            write_whole(self.path, tomli_w.dumps(tables), mode=0o600)
        except OSError as error:
            raise SquishError(f"{self.path} cannot be written: {error.strerror}.") from error


def _problem(name: str, table: object) -> str | None:
    """What is wrong with the table of a key."""
    if not isinstance(table, dict):
        return "must be a table, with hash in it"
    if not _NAME.fullmatch(name):
        return "a name has up to 64 letters, digits, dots and dashes"
    for field, value in table.items():
        if field not in _FIELDS:
            return f"{clean(field)[:80]} is not a field of a key; there are {', '.join(_FIELDS)}"
        fits, what = _FIELDS[field]
        if not fits(value):
            return f"{field} must be {what}"
    if "hash" not in table:
        return "hash is missing: the SHA-256 of the key in hex"
    return "name must be that of the table" if table.get("name", name) != name else None


def _is_hash(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[0-9a-f]{64}", value) is not None


def _are_names(value: object) -> bool:
    return isinstance(value, list) and value != [] and all(isinstance(each, str) and each.strip() for each in value)


def _is_limit(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


_LIMIT: tuple[Callable[[object], bool], str] = _is_limit, "a whole number, 1 or more"
_FIELDS: dict[str, tuple[Callable[[object], bool], str]] = {
    "hash": (_is_hash, "a SHA-256 in hex: 64 digits, a to f in small letters"),
    "models": (_are_names, 'a list of names, such as ["smollm2:135m"]; without it the key has all models'),
    "requests_per_minute": _LIMIT,
    "concurrent_requests": _LIMIT,
    "background": (lambda value: isinstance(value, bool), "true or false"),
    "created": (lambda value: type(value) is date, "a date, such as 2026-11-26"),
    "name": (lambda value: isinstance(value, str), "a text"),
}


class _Locked:
    """Among processes that change the file."""

    def __init__(self, home: Path) -> None:
        self._home = home

    def __enter__(self) -> None:
        try:
            self._home.mkdir(parents=True, exist_ok=True)
            self._opened = (self._home / "keys.lock").open("w")
            with suppress(NoLocks):  # then the last writer wins
                lock(self._opened.fileno())
        except OSError as error:
            raise SquishError(f"{self._home} cannot be written: {error.strerror}.") from error

    def __exit__(self, *error: object) -> None:
        self._opened.close()


def hash_of(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()
