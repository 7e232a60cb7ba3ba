"""The Hugging Face Hub: what is in a repository at one commit, what a search finds, and what a card says.

It downloads no weights: it gives addresses, sizes and hashes. It knows neither the store nor which files make a model.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from squish.config.settings import Settings
from squish.errors import GatedRepo, ModelNotFound, SquishError
from squish.hub import rows, snapshot, token
from squish.hub.ask import HubRequest, refused
from squish.hub.library import asking
from squish.hub.rows import HubModel, Kind
from squish.hub.snapshot import HubFile, Snapshot
from squish.models import catalog

if TYPE_CHECKING:
    from httpx2 import Response
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.hf_api import ExpandModelProperty_T

__all__ = ["Hub", "HubFile", "Snapshot"]

DOCTOR_DEADLINE = 5.0  # seconds
_LARGEST_CARD = 64 * 1024
_EXPANDED: tuple[ExpandModelProperty_T, ...] = (
    *("downloads", "likes", "safetensors", "gguf", "config", "gated"),
    "lastModified",
)


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
        request = HubRequest(repo_id, checked=partial(snapshot.checked, repo_id=repo_id))
        return await asking(self._settings, request, partial(self._snapshot, request, repo_id, revision))

    async def search(self, text: str, kind: Kind, *, limit: int = 50) -> tuple[HubModel, ...]:
        """Repositories of one kind that match a text, the most downloaded first.

        Raises Offline, HubUnreachable, HubError.
        """
        request = HubRequest("the search", checked=rows.checked)
        return await asking(self._settings, request, partial(self._search, request, text, kind, limit))

    async def card(self, repo_id: str) -> str:
        """What a repository's README.md says, its first 64 kB without the metadata; nothing where there is none.

        The text is as it was written: who shows it cleans it. Raises Offline, HubUnreachable, GatedRepo, HubError.
        """
        request = HubRequest(repo_id, most=_LARGEST_CARD)
        return await asking(self._settings, request, partial(self._card, request, repo_id))

    async def whoami(self) -> int:
        """The status with which the Hub answers the question whose token this is: 200, or 401 without a good one.

        Raises Offline, HubUnreachable, HubError.
        """
        request = HubRequest("the token", most=_LARGEST_CARD, deadline=DOCTOR_DEADLINE, patient=False)
        return await asking(self._settings, request, self._whoami)

    # What follows up to `gated` runs in the library's thread.

    def _snapshot(self, request: HubRequest, repo_id: str, revision: str | None) -> Snapshot:
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError

        try:
            info = self._api().model_info(repo_id, revision=revision, files_metadata=True)
            return snapshot.read(info, repo_id, self._settings.hub_endpoint)
        except HFValidationError as error:
            raise self._not_found(repo_id) from error
        except HfHubHTTPError as error:
            raise self._refused(error, request, repo_id, revision) from error

    def _search(self, request: HubRequest, text: str, kind: Kind, limit: int) -> tuple[HubModel, ...]:
        from huggingface_hub.errors import HfHubHTTPError

        of_kind = {"safetensors": "text-generation", "embedding": "sentence-transformers"}
        tags = ["safetensors", of_kind[kind]] if kind in of_kind else [kind]
        try:
            found = self._api().list_models(
                search=text or None, filter=tags, sort="downloads", limit=limit, expand=[*_EXPANDED]
            )
            return tuple(rows.read(row, kind) for row in found)
        except HfHubHTTPError as error:
            raise refused(error.response.status_code, request) from error

    def _card(self, request: HubRequest, repo_id: str) -> str:
        from huggingface_hub import hf_hub_url, hf_raise_for_status
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError
        from huggingface_hub.repocard import REGEX_YAML_BLOCK

        try:
            response = self._get(hf_hub_url(repo_id, "README.md", endpoint=self._settings.hub_endpoint))
            hf_raise_for_status(response)
        except HFValidationError as error:
            raise self._not_found(repo_id) from error
        except HfHubHTTPError as error:
            if error.response.status_code in (401, 403):
                raise self.gated(repo_id) from error
            if error.response.status_code == 404:
                return ""
            raise self._refused(error, request, repo_id) from error
        text = response.content.decode("utf-8-sig", errors="replace")
        return REGEX_YAML_BLOCK.sub("", text, count=1)

    def _whoami(self) -> int:
        return self._get(f"{self._settings.hub_endpoint}/api/whoami-v2").status_code

    def _api(self) -> HfApi:
        from huggingface_hub import HfApi

        return HfApi(self._settings.hub_endpoint, token=token.token(self._settings) or False)

    def _get(self, url: str) -> Response:
        from huggingface_hub import get_session

        return get_session().get(url, headers=self.headers())

    def gated(self, repo_id: str) -> GatedRepo:
        """The error for a repository whose license was not accepted, or not with this token."""
        page = f"{self._settings.hub_endpoint}/{repo_id}"
        known = token.token(self._settings)
        how = "as the account of your token" if known else "while signed in, then set HF_TOKEN to your token"
        return GatedRepo(
            f"{repo_id} can be downloaded only after its license is accepted.",
            hint=f"Accept the license at {page} {how}.",
            param="model",
        )

    def _refused(
        self, error: HfHubHTTPError, request: HubRequest, repo_id: str, revision: str | None = None
    ) -> SquishError:
        """The error for an answer about a repository whose status is not 200."""
        from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

        status, reason = error.response.status_code, error.response.headers.get("x-error-message", "")
        if isinstance(error, GatedRepoError):
            return self.gated(repo_id)
        if isinstance(error, RevisionNotFoundError):
            return ModelNotFound(f"{repo_id} has no revision {revision!r}.", param="model")
        # The Hub answers 401 for a repository that does not exist, and for a private one.
        unknown = status in (401, 404) and not reason.startswith("Invalid credentials")
        if unknown or isinstance(error, RepositoryNotFoundError):
            return self._not_found(repo_id)
        return refused(status, request)

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
