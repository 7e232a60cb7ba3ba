"""The Hugging Face Hub: what is in a repository at one commit. The only importer of huggingface_hub.

It downloads nothing: it gives addresses, sizes and hashes. It knows neither the store nor which files make a model.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from squish.config.settings import Settings
from squish.download.request import require_certificates
from squish.errors import GatedRepo, HubError, HubUnreachable, ModelNotFound, Offline
from squish.hub import rows
from squish.hub.rows import HubModel, Kind
from squish.models import catalog
from squish.text import clean

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import ModelInfo

_TIMEOUT = 20.0
_LONGEST = 60.0
_LARGEST = 64 * 1024 * 1024
_LARGEST_CARD = 64 * 1024
_BUSY = frozenset({429, 500, 502, 503, 504})
_PAUSES = (1.0, 3.0)
_LONGEST_PAUSE = 10.0
_NETWORK_HINT = "Check the network, HTTPS_PROXY and HF_ENDPOINT. Installed models work without it."

_ERRNO = re.compile(r"\A\[Errno -?\d+\] ")
_METADATA = re.compile(r"\A\ufeff?---[ \t]*\n.*?\n---[ \t]*(?:\n|\Z)", re.DOTALL)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file at a commit. size in bytes; sha256 of a large file, the git blob id of a small one."""

    path: str
    url: str
    size: int
    sha256: str | None
    git_blob: str | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A repository at one commit."""

    repo_id: str
    commit: str
    license: str | None
    files: tuple[HubFile, ...]


class Hub:
    """The Hub of some settings: their endpoint and their token. Every method blocks, so call it from a thread."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def token(self) -> str | None:
        """The token of HF_TOKEN, or of `hf auth login`."""
        if self._settings.hf_token:
            return self._settings.hf_token
        from huggingface_hub import get_token

        return get_token()

    def headers(self) -> dict[str, str]:
        """The headers of a download from the Hub."""
        token = self.token()
        return {"User-Agent": "squish"} | ({"Authorization": f"Bearer {token}"} if token else {})

    def snapshot(self, repo_id: str, revision: str | None = None) -> Snapshot:
        """All files of a repository, with sizes and hashes, at the commit that a branch or tag means now.

        Raises Offline, HubUnreachable, GatedRepo, ModelNotFound, HubError.
        """
        with self._errors(repo_id, revision):
            api = self._api()
            info = _patiently(lambda: api.model_info(repo_id, revision=revision, files_metadata=True, timeout=_TIMEOUT))
        if not info.sha or info.siblings is None:
            raise HubError(f"The Hub's answer for {repo_id} names no commit and no files.")
        base = f"{self._settings.hub_endpoint}/{repo_id}/resolve/{info.sha}"
        files = tuple(
            HubFile(
                path=each.rfilename,
                url=f"{base}/{quote(each.rfilename)}",
                size=each.lfs.size if each.lfs is not None else each.size or 0,
                sha256=each.lfs.sha256 if each.lfs is not None else None,
                git_blob=None if each.lfs is not None else each.blob_id,
            )
            for each in info.siblings
        )
        return Snapshot(repo_id, info.sha, _license(info), files)

    def search(self, text: str, kind: Kind, *, limit: int = 50) -> tuple[HubModel, ...]:
        """Repositories of one kind that match a text, the most downloaded first.

        Raises Offline, HubUnreachable, HubError.
        """
        wanted = {
            "search": text,
            "filter": [kind] if kind != "safetensors" else ["safetensors", "text-generation"],
            "sort": "downloads",
            "limit": limit,
            "expand": ["downloads", "likes", "safetensors", "gguf", "config", "gated", "lastModified"],
        }
        with self._errors("the search", None):
            found = _patiently(lambda: self._get("/api/models", {key: value for key, value in wanted.items() if value}))
        if not isinstance(found, list):
            raise HubError("The Hub's answer to the search cannot be understood.")
        models = (rows.read(row, kind) for row in found[:limit])
        return tuple(model for model in models if model is not None)

    def card(self, repo_id: str) -> str:
        """What a repository's README.md says, its first 64 kB without the metadata; nothing where there is none.

        The text is as it was written: who shows it cleans it. Raises Offline, HubUnreachable, GatedRepo, HubError.
        """
        with self._errors(repo_id, None):
            from huggingface_hub.errors import HfHubHTTPError

            try:
                body = self._read(f"/{repo_id}/resolve/main/README.md", {}, _LARGEST_CARD)
            except HfHubHTTPError as error:
                if error.response.status_code in (401, 403):
                    raise self.gated(repo_id) from error
                if error.response.status_code == 404:
                    return ""
                raise
        return _METADATA.sub("", body[:_LARGEST_CARD].decode(errors="replace"), count=1)

    def _get(self, path: str, query: Mapping[str, Any]) -> Any:
        """The JSON behind a path of the Hub's API."""
        body = self._read(path, query, _LARGEST)
        if len(body) > _LARGEST:
            raise HubError("The Hub's answer is too long to be one.")
        return json.loads(body)

    def _read(self, path: str, query: Mapping[str, Any], most: int) -> bytes:
        """What is behind a path of the Hub, longer than `most` bytes where there is more of it.

        An answer that drips in without end is given up.
        """
        self._api()
        from huggingface_hub import get_session
        from huggingface_hub.errors import HfHubHTTPError

        url, headers = f"{self._settings.hub_endpoint}{path}", self.headers()
        end, body = time.monotonic() + _LONGEST, bytearray()
        with get_session().stream("GET", url, params=query, headers=headers, timeout=_TIMEOUT) as response:
            if response.is_error:
                raise HfHubHTTPError(f"status {response.status_code}", response=response)
            for piece in response.iter_bytes():
                body += piece
                if len(body) > most:
                    break
                if time.monotonic() > end:
                    raise HubUnreachable(_silent(self._settings.hub_endpoint, _LONGEST), hint=_NETWORK_HINT)
        return bytes(body)

    def gated(self, repo_id: str) -> GatedRepo:
        """The error for a repository whose license was not accepted, or not with this token."""
        page = f"{self._settings.hub_endpoint}/{repo_id}"
        how = "your token's account" if self.token() else "an account, and set HF_TOKEN to a token of it"
        return GatedRepo(
            f"{repo_id} can be downloaded only after its license was accepted.",
            hint=f"Accept the license at {page} with {how}.",
            param="model",
        )

    def _api(self) -> HfApi:
        if self._settings.offline:
            raise Offline(
                "SQUISH_OFFLINE forbids the connection to the Hub.",
                hint="Unset SQUISH_OFFLINE, or use a model that `squish list` shows.",
            )
        require_certificates()
        from huggingface_hub import HfApi

        if not self._settings.debug:
            # What matters of it reaches us as an error, and errors we say ourselves.
            logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)
        return HfApi(endpoint=self._settings.hub_endpoint, token=self.token() or False, library_name="squish")

    @contextmanager
    def _errors(self, repo_id: str, revision: str | None) -> Iterator[None]:
        """Translate what huggingface_hub and its HTTP library raise."""
        if self._settings.offline:
            self._api()
        from httpx2 import HTTPError, InvalidURL, TimeoutException
        from huggingface_hub import errors

        try:
            yield
        except errors.GatedRepoError as error:
            raise self.gated(repo_id) from error
        except errors.RevisionNotFoundError as error:
            raise ModelNotFound(f"{repo_id} has no revision {revision!r}.", param="model") from error
        except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
            raise self._not_found(repo_id) from error
        except errors.OfflineModeIsEnabled as error:
            raise Offline("HF_HUB_OFFLINE forbids the connection to the Hub.", hint="Unset HF_HUB_OFFLINE.") from error
        except errors.HfHubHTTPError as error:
            status = error.response.status_code
            hint = "HF_TOKEN is not valid." if status in (401, 403) else "Try again later."
            raise HubError(f"The Hub answered {status} for {repo_id}.", hint=hint) from error
        except TimeoutException as error:
            raise HubUnreachable(_silent(self._settings.hub_endpoint, _TIMEOUT), hint=_NETWORK_HINT) from error
        except (HTTPError, InvalidURL, OSError) as error:
            reason = clean(_ERRNO.sub("", str(error))) or type(error).__name__
            raise HubUnreachable(
                f"{self._settings.hub_endpoint} cannot be reached: {reason}.", hint=_NETWORK_HINT
            ) from error
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise HubError(f"The Hub's answer for {repo_id} cannot be understood.") from error

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
        if not self.token():
            hint += " If it is private, set HF_TOKEN."
        return ModelNotFound(f"{repo_id} is not on the Hub.", hint=hint, param="model")


def _license(info: ModelInfo) -> str | None:
    """The license that the card or, without one, the tags name."""
    card = info.card_data
    named = card.get("license") if card is not None else None
    tagged = next((tag.removeprefix("license:") for tag in info.tags or () if tag.startswith("license:")), None)
    return clean(named) if isinstance(named, str) else (clean(tagged) if tagged else None)


def _silent(endpoint: str, seconds: float) -> str:
    return f"{endpoint} did not answer within {seconds:.0f} seconds."


def _patiently(ask: Callable[[], T]) -> T:
    """Ask again where the Hub is busy: when it says, or a little later."""
    from huggingface_hub.errors import HfHubHTTPError

    for pause in _PAUSES:
        try:
            return ask()
        except HfHubHTTPError as error:
            if error.response.status_code not in _BUSY:
                raise
            asked = error.response.headers.get("retry-after", "")
            time.sleep(min(float(asked), _LONGEST_PAUSE) if asked.isdigit() else pause)
    return ask()
