"""The grammar of model names.

    name      = short ["+" word] | repo ["+" word] | path
                                                 llama3.1:8b+poet: with the adapter poet
    short     = word [":" word]                  llama3.1:8b   qwen3:8b-8bit   smollm2:135m
    repo      = word "/" word [":" word [".gguf"]] ["@" word]
                                                 org/repo   org/repo:Q8_0   org/repo@main
                                                 org/repo:8bit, org/repo:mxfp4: compressed so while it is pulled
              | an address of huggingface.co or hf.co, of a repository, a folder or a file
                                                 https://huggingface.co/org/repo/blob/main/model-Q8_0.gguf
    path      = "./…" | "../…" | "/…" | "~…" | "….gguf"
    word      = a letter or digit, then letters, digits, "." "_" "-"; no ".." and no "--"

A tag can have the tag `latest` behind it, as some clients of Ollama write, which means nothing.

`parse` and `str` are inverse: parse(str(ref)) == ref. This module knows neither the catalog nor the store.
"""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

import msgspec
from msgspec.structs import replace

from squish.errors import InvalidName

_WORD = r"[A-Za-z0-9](?:[A-Za-z0-9_]|[.-](?![.-]))*"
_ADAPTER = rf"(?:\+(?P<adapter>{_WORD}))?"
_SHORT = re.compile(rf"(?P<name>{_WORD})(?::(?P<tag>{_WORD}))?{_ADAPTER}")
_REPO = re.compile(rf"(?P<org>{_WORD})/(?P<repo>{_WORD})(?::(?P<tag>{_WORD}))?(?:@(?P<revision>{_WORD}))?{_ADAPTER}")
_ADDRESS = re.compile(r"(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/(?P<path>[^?#]*)(?:[?#].*)?", re.IGNORECASE)
_SUFFIX = ".gguf"
_PAGES = frozenset({"blob", "resolve", "raw", "tree", "commit", "commits"})  # which name a revision
_NOT_MODELS = frozenset({"datasets", "spaces", "collections", "papers", "docs", "blog"})
_MAX_LENGTH, _LONGEST_ADDRESS = 200, 2000


class ShortName(msgspec.Struct, frozen=True):
    """A name of the catalog or of an installed model, `llama3.1:8b`; adapter: with which it is served."""

    name: str
    tag: str | None = None
    adapter: str | None = None

    def __str__(self) -> str:
        adapter = f"+{self.adapter}" if self.adapter else ""
        return f"{self.name}:{self.tag}{adapter}" if self.tag else f"{self.name}{adapter}"


class RepoName(msgspec.Struct, frozen=True):
    """A Hub repository, with a file variant (`:Q8_0`), a compression (`:8bit`) or a revision where one is asked for."""

    org: str
    repo: str
    tag: str | None = None
    revision: str | None = None
    adapter: str | None = None

    @property
    def repo_id(self) -> str:
        return f"{self.org}/{self.repo}"

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        revision = f"@{self.revision}" if self.revision else ""
        adapter = f"+{self.adapter}" if self.adapter else ""
        return f"{self.repo_id}{tag}{revision}{adapter}"


class LocalPath(msgspec.Struct, frozen=True):
    """A directory or a .gguf file on this machine."""

    path: Path

    def __str__(self) -> str:
        text = str(self.path)
        return text if text.startswith(("/", "./", "../", "~")) or text in (".", "..") else f"./{text}"


ModelId = ShortName | RepoName
ModelRef = ModelId | LocalPath

_LATEST = "latest"


def without_latest(id: ModelId) -> ModelId:
    """The id without the tag `latest`, which is what Ollama calls a name that has none."""
    return replace(id, tag=None) if id.tag == _LATEST else id


def as_word(text: str) -> str:
    """The text as the grammar's words are: what they cannot have becomes "-"."""
    text = re.sub(r"[^A-Za-z0-9._-]+", "-", text)
    return re.sub(r"([.-])[.-]+", r"\1", text).strip("._-")


def file_tag(path: str) -> str | None:
    """The tag that means one .gguf file of a repository: its path without the suffix, as a word."""
    while path.lower().endswith(_SUFFIX):
        path = path[: -len(_SUFFIX)]
    return as_word(path) or None


def parse(text: str) -> ModelRef:
    """The reference that a name stands for. Raises InvalidName with what a name may look like."""
    text = text.strip()
    if address := _ADDRESS.fullmatch(text):
        return _parse_address(text, address["path"])
    if text.count(":") > 1:
        text = text.removesuffix(f":{_LATEST}")
    repo = _REPO.fullmatch(text) if len(text) <= _MAX_LENGTH else None
    if repo and repo["tag"]:  # org/repo:model.gguf is a file of a repository
        return _repo(repo)
    if text.startswith(("./", "../", "/", "~")) or text in (".", "..") or text.lower().endswith(_SUFFIX):
        return LocalPath(Path(text))
    if repo:
        return _repo(repo)
    if len(text) <= _MAX_LENGTH and (short := _SHORT.fullmatch(text)):
        return ShortName(short["name"], short["tag"], short["adapter"])
    raise _invalid(text)


def local_path(text: str) -> LocalPath | None:
    """The path that a name is; None where it is another name, or none."""
    try:
        ref = parse(text)
    except InvalidName:
        return None
    return ref if isinstance(ref, LocalPath) else None


def _repo(found: re.Match[str]) -> RepoName:
    tag = found["tag"]
    while tag and tag.lower().endswith(_SUFFIX):
        tag = tag[: -len(_SUFFIX)]
    return RepoName(found["org"], found["repo"], tag, found["revision"], found["adapter"])


def _parse_address(text: str, path: str) -> RepoName:
    """A page of the Hub: a repository, a folder or a file of it."""
    parts = [unquote(each) for each in path.strip("/").split("/")]
    if parts[0].lower() in _NOT_MODELS:
        hint = "Name a model's repository, such as https://huggingface.co/org/repo."
        raise InvalidName(f"{text[:80]!r} is not the address of a model.", hint=hint, param="model")
    repo = _REPO.fullmatch("/".join(parts[:2])) if len(text) <= _LONGEST_ADDRESS else None
    if repo is None:
        raise _invalid(text)
    found, page, inner = _repo(repo), parts[2:3], parts[3:]
    if page and page[0] in _PAGES and inner:
        revision, file = inner[0], "/".join(inner[1:])
        if not re.fullmatch(_WORD, revision):
            raise _invalid(text)
        tag = file_tag(file) if file.lower().endswith(_SUFFIX) else None
        return RepoName(found.org, found.repo, tag, None if revision == "main" else revision)
    return found


def _invalid(text: str) -> InvalidName:
    return InvalidName(
        f"{text[:80]!r} is not a model name.",
        hint="Write a name like llama3.1:8b, a Hub repository like org/repo, or a path like ./model.gguf.",
        param="model",
    )
