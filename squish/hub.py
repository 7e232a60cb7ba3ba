"""The Hugging Face Hub: what is in a repository at one commit. The only importer of huggingface_hub.

It downloads nothing: it gives addresses, sizes and hashes. It knows neither the store nor which files make a model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal
from urllib.parse import quote

from squish import catalog
from squish.config import Settings
from squish.errors import GatedRepo, HubError, HubUnreachable, ModelNotFound, Offline
from squish.text import clean

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import ModelInfo

_TIMEOUT = 20.0
_CHECK_TIMEOUT = 5.0


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


Kind = Literal["mlx", "safetensors", "gguf"]


@dataclass(frozen=True, slots=True)
class HubModel:
    """A repository as a search lists it; 0 and None where the Hub does not know.

    size: bytes of the weights as stored; tensors: numbers by dtype as safetensors names it; architecture: its
    model_type; bits: of a quantized model; updated: `2026-01-31`.
    """

    repo_id: str
    kind: Kind
    downloads: int
    likes: int
    tensors: Mapping[str, int]
    parameters: int
    architecture: str | None
    bits: int | None
    updated: str | None
    gated: bool


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
            info = self._api().model_info(repo_id, revision=revision, files_metadata=True, timeout=_TIMEOUT)
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
        with self._errors("the search", None):
            api = self._api()
            self._knock()
            found = list(
                api.list_models(
                    search=text or None,
                    filter=kind if kind != "safetensors" else ["safetensors", "text-generation"],
                    sort="downloads",
                    limit=limit,
                    expand=["downloads", "likes", "safetensors", "gguf", "config", "tags", "gated", "lastModified"],
                )
            )
        return tuple(_listed(each, kind) for each in found)

    def _knock(self) -> None:
        """Fail at once where nobody answers: huggingface_hub itself would try a listing for half a minute."""
        from huggingface_hub import get_session

        get_session().head(self._settings.hub_endpoint, timeout=_TIMEOUT)

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
        from huggingface_hub import HfApi

        return HfApi(endpoint=self._settings.hub_endpoint, token=self.token() or False, library_name="squish")

    @contextmanager
    def _errors(self, repo_id: str, revision: str | None) -> Iterator[None]:
        """Translate what huggingface_hub and its HTTP library raise."""
        if self._settings.offline:
            self._api()
        from httpx2 import HTTPError, InvalidURL
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
        except (HTTPError, InvalidURL, OSError) as error:
            reason = clean(str(error)) or type(error).__name__
            raise HubUnreachable(
                f"{self._settings.hub_endpoint} cannot be reached: {reason}.",
                hint="Check the network, HTTPS_PROXY and HF_ENDPOINT. Installed models work without it.",
            ) from error
        except ValueError as error:
            raise HubError(f"The Hub's answer for {repo_id} cannot be understood.") from error

    def _not_found(self, repo_id: str) -> ModelNotFound:
        near = catalog.nearest(repo_id.partition("/")[2])
        hint = (
            f"Catalog names like it: {', '.join(near)}."
            if near
            else f"Look for it at {self._settings.hub_endpoint}/models."
        )
        if not self.token():
            hint += " If it is private, set HF_TOKEN."
        return ModelNotFound(f"{repo_id} is not on the Hub.", hint=hint, param="model")


def _listed(info: ModelInfo, kind: Kind) -> HubModel:
    """What a search says of a repository. Its texts are not ours and are cleaned."""
    config = info.config if isinstance(info.config, dict) else {}
    packed = config.get("quantization_config") or config.get("quantization")
    bits = packed.get("bits") if isinstance(packed, dict) else None
    gguf = getattr(info, "gguf", None)
    gguf = gguf if isinstance(gguf, dict) else {}
    named = gguf.get("architecture") if kind == "gguf" else config.get("model_type")
    stored = info.safetensors
    return HubModel(
        repo_id=clean(info.id),
        kind=kind,
        downloads=info.downloads or 0,
        likes=info.likes or 0,
        tensors={} if stored is None else {clean(name): int(count) for name, count in stored.parameters.items()},
        parameters=int(gguf.get("total") or 0) if kind == "gguf" else (stored.total if stored is not None else 0),
        architecture=clean(named) if isinstance(named, str) else None,
        bits=bits if isinstance(bits, int) else None,
        updated=f"{info.last_modified:%Y-%m-%d}" if info.last_modified is not None else None,
        gated=bool(info.gated),
    )


def _license(info: ModelInfo) -> str | None:
    """The license that the card or, without one, the tags name."""
    card = info.card_data
    named = card.get("license") if card is not None else None
    tagged = next((tag.removeprefix("license:") for tag in info.tags or () if tag.startswith("license:")), None)
    return clean(named) if isinstance(named, str) else (clean(tagged) if tagged else None)
