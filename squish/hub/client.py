"""The Hugging Face Hub: what is in a repository at one commit, what a search finds, and what a card says.

It downloads no weights: it gives addresses, sizes and hashes. It knows neither the store nor which files make a model.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote

import msgspec

from squish.config.settings import Settings
from squish.errors import GatedRepo, HubError, ModelNotFound, SquishError
from squish.hub import rows, snapshot, token
from squish.hub.ask import LARGEST, Answer, Query, ask, ask_once
from squish.hub.rows import HubModel, Kind
from squish.hub.snapshot import HubFile, Snapshot
from squish.models import catalog

__all__ = ["Hub", "HubFile", "Snapshot"]

DOCTOR_DEADLINE = 5.0  # seconds
_LARGEST_CARD = 64 * 1024
_LONGEST_NAME = 96  # characters of a repository's id
_METADATA = re.compile(r"\A\ufeff?---[ \t]*\n.*?\n---[ \t]*(?:\n|\Z)", re.DOTALL)
_EXPANDED = ["downloads", "likes", "safetensors", "gguf", "config", "gated", "lastModified"]


class Hub:
    """The Hub of some settings: their endpoint and their token."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def headers(self) -> dict[str, str]:
        """The headers of a download from the Hub, with the token."""
        return token.headers(self._settings)

    async def snapshot(self, repo_id: str, revision: str | None = None) -> Snapshot:
        """All files of a repository, with sizes and hashes, at the commit that a branch or tag means now.

        Raises Offline, HubUnreachable, GatedRepo, ModelNotFound, HubError.
        """
        if len(repo_id) > _LONGEST_NAME:
            raise self._not_found(repo_id)
        at = f"/revision/{quote(revision, safe='')}" if revision else ""
        answer = await self._ask(f"/api/models/{repo_id}{at}", {"blobs": "true"})
        if answer.status != 200:
            raise self._refused(answer, repo_id, revision)
        try:
            return snapshot.decode(answer.body, repo_id, self._settings.hub_endpoint)
        except (ValueError, RecursionError) as error:
            raise HubError(f"The Hub's answer for {repo_id} cannot be understood.") from error

    async def search(self, text: str, kind: Kind, *, limit: int = 50) -> tuple[HubModel, ...]:
        """Repositories of one kind that match a text, the most downloaded first.

        Raises Offline, HubUnreachable, HubError.
        """
        query: dict[str, str | list[str]] = {
            "filter": [kind] if kind != "safetensors" else ["safetensors", "text-generation"],
            "sort": "downloads",
            "limit": str(limit),
            "expand": _EXPANDED,
        }
        answer = await self._ask("/api/models", {"search": text, **query} if text else query)
        if answer.status != 200:
            raise _failed(answer, "the search")
        try:
            found: Any = msgspec.json.decode(answer.body)
            if not isinstance(found, list):
                raise TypeError("not a list")
            models = [rows.read(row, kind) for row in found[:limit]]
        except (ValueError, TypeError, RecursionError) as error:
            raise HubError("The Hub's answer to the search cannot be understood.") from error
        return tuple(model for model in models if model is not None)

    async def card(self, repo_id: str) -> str:
        """What a repository's README.md says, its first 64 kB without the metadata; nothing where there is none.

        The text is as it was written: who shows it cleans it. Raises Offline, HubUnreachable, GatedRepo, HubError.
        """
        answer = await self._ask(f"/{repo_id}/resolve/main/README.md", most=_LARGEST_CARD)
        if answer.status in (401, 403):
            raise self.gated(repo_id)
        if answer.status == 404:
            return ""
        if answer.status != 200:
            raise self._refused(answer, repo_id)
        return _METADATA.sub("", answer.body.decode(errors="replace"), count=1)

    async def whoami(self) -> int:
        """The status with which the Hub answers the question whose token this is: 200, or 401 without a good one.

        Raises Offline, HubUnreachable, HubError.
        """
        return (await ask_once(self._settings, "/api/whoami-v2", deadline=DOCTOR_DEADLINE)).status

    def gated(self, repo_id: str) -> GatedRepo:
        """The error for a repository whose license was not accepted, or not with this token."""
        page = f"{self._settings.hub_endpoint}/{repo_id}"
        known = token.token(self._settings)
        how = "your token's account" if known else "an account, and set HF_TOKEN to a token of it"
        return GatedRepo(
            f"{repo_id} can be downloaded only after its license was accepted.",
            hint=f"Accept the license at {page} with {how}.",
            param="model",
        )

    async def _ask(self, path: str, query: Query | None = None, *, most: int | None = None) -> Answer:
        answer = await ask(self._settings, path, query, most=most or LARGEST)
        if len(answer.body) >= LARGEST:
            raise HubError("The Hub's answer is too long to be one.")
        return answer

    def _refused(self, answer: Answer, repo_id: str, revision: str | None = None) -> SquishError:
        """The error for an answer about a repository whose status is not 200."""
        if answer.code == "GatedRepo":
            return self.gated(repo_id)
        if answer.code == "RevisionNotFound":
            return ModelNotFound(f"{repo_id} has no revision {revision!r}.", param="model")
        # The Hub answers 401 for a repository that does not exist, and for a private one.
        unknown = answer.status in (401, 404) and not answer.message.startswith("Invalid credentials")
        return self._not_found(repo_id) if unknown or answer.code == "RepoNotFound" else _failed(answer, repo_id)

    def _not_found(self, repo_id: str) -> ModelNotFound:
        near = [
            entry.id
            for id in catalog.nearest(repo_id.partition("/")[2])
            for entry in catalog.entries()
            if entry.id == id and entry.repo != repo_id  # that name would lead here again
        ]
        hint = (
            f"Catalog names like it: {', '.join(near)}."
            if near
            else f"Look for it at {self._settings.hub_endpoint}/models."
        )
        if not token.token(self._settings):
            hint += " If it is private, set HF_TOKEN."
        return ModelNotFound(f"{repo_id} is not on the Hub.", hint=hint, param="model")


def _failed(answer: Answer, what: str) -> HubError:
    hint = "HF_TOKEN is not valid." if answer.status in (401, 403) else "Try again later."
    return HubError(f"The Hub answered {answer.status} for {what}.", hint=hint)
