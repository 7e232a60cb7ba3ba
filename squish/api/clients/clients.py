"""The clients of one server: finds whose key a request has, holds it to what that key may, and counts what it used."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from squish.api.clients.keys import ApiKey, KeyFile, hash_of
from squish.api.clients.limits import KeyLimits
from squish.api.clients.usage import UsageFile
from squish.api.errors import Refused
from squish.errors import ConfigError, ModelNotFound, StoreError
from squish.models.store import Store

logger = logging.getLogger("squish.api")

SINGLE = "SQUISH_API_KEY"
"""The name under which the one key of the environment is counted."""

_EVERY = 2.0  # seconds between writes of what was used


class Clients:
    """single: the key of the environment or of --api-key-file, beside those of keys.toml. report: is told what a key
    has used. Raises ConfigError where keys.toml cannot be read."""

    def __init__(
        self,
        home: Path,
        single: str | None,
        store: Store,
        report: Callable[[str, Mapping[str, int]], None] = lambda key, amounts: None,
    ) -> None:
        self._file, self._store = KeyFile(home), store
        self._single = ApiKey(name=SINGLE, hash=hash_of(single)) if single is not None else None
        self._keyed = self._single is not None or bool(self._file.keys())
        self._limits, self._usage, self._report = KeyLimits(), UsageFile(home), report
        self._writing: asyncio.Task[None] | None = None

    @property
    def need_keys(self) -> bool:
        """Whether a request must have a key: from the first key on, also when the last one is taken away meanwhile."""
        self._keyed = self._keyed or bool(self._keys())
        return self._keyed

    def whose(self, given: Iterable[str]) -> ApiKey | None:
        """The first of these keys that is one. Hashes are compared, so time tells nothing of a key."""
        known = self._keys()
        for each in given:
            hash = hash_of(each)
            if self._single is not None and hash == self._single.hash:
                return self._single
            if found := known.get(hash):
                return found
        return None

    def may_see(self, key: ApiKey | None, id: str) -> bool:
        """Whether a model, by its id, is one of this key's."""
        return key is None or not key.models or id in key.models

    @contextmanager
    def asking(self, key: ApiKey | None, model: str, *, counted: bool = True) -> Iterator[None]:
        """Around a request. Raises Refused: 403 for a model that is not the key's, 429 for one too many."""
        self.check_model(key, model)
        with self._limits.asking(key if counted else None):
            yield

    def check_model(self, key: ApiKey | None, model: str) -> None:
        """Raises Refused (403) for a model that is not the key's."""
        if key is not None and key.models and model not in key.models and self._id(model) not in key.models:
            message = f"The key {key.name} may not use this model. It has {', '.join(key.models)}."
            raise Refused(403, "model_not_allowed", message)

    def named(self, name: str) -> ApiKey:
        """A key by its name. Raises Refused (403) for one that was taken away."""
        for key in (self._single, *self._keys().values()):
            if key is not None and key.name == name:
                return key
        raise Refused(403, "key_removed", f"The key {name} was removed.")

    def used(self, key: ApiKey | None, model: str, **amounts: int) -> None:
        """Count requests, and tokens (prompt, cached, completion). They are on disk a few seconds later."""
        if key is None:
            return
        self._usage.count(key.name, model, **amounts)
        self._report(key.name, amounts)
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write_soon(), name="usage")

    async def close(self) -> None:
        """Write what is not written yet."""
        if self._writing:
            self._writing.cancel()
            await asyncio.gather(self._writing, return_exceptions=True)
        await self._write()

    async def _write_soon(self) -> None:
        await asyncio.sleep(_EVERY)
        await self._write()

    async def _write(self) -> None:
        try:
            await asyncio.to_thread(self._usage.flush)
        except StoreError as error:
            logger.warning("%s", error.message)

    def _keys(self) -> dict[str, ApiKey]:
        """Those of now. A file that was broken while the server runs leaves those from before."""
        try:
            return self._file.keys()
        except ConfigError as error:
            logger.warning("%s The keys from before stay.", error.message)
            return self._file.keys()

    def _id(self, model: str) -> str | None:
        try:
            return self._store.find(model).manifest.id
        except ModelNotFound:
            return None
