"""The grammar of model names.

    name      = short | repo | path
    short     = word [":" word]                  llama3.1:8b   qwen3:8b-8bit   smollm2:135m
    repo      = ["hf.co/" | "https://huggingface.co/"] word "/" word [":" word] ["@" word]
                                                 org/repo   org/repo:Q8_0   org/repo@main
                                                 org/repo:8bit, org/repo:mxfp4: compressed so while it is pulled
    path      = "./…" | "../…" | "/…" | "~…" | "….gguf"
    word      = a letter or digit, then letters, digits, "." "_" "-"; no ".." and no "--"

`parse` and `str` are inverse: parse(str(ref)) == ref. This module knows neither the catalog nor the store.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from squish.errors import InvalidName

_WORD = r"[A-Za-z0-9](?:[A-Za-z0-9_]|[.-](?![.-]))*"
_SHORT = re.compile(rf"(?P<name>{_WORD})(?::(?P<tag>{_WORD}))?")
_REPO = re.compile(rf"(?P<org>{_WORD})/(?P<repo>{_WORD})(?::(?P<tag>{_WORD}))?(?:@(?P<revision>{_WORD}))?")
_PREFIXES = ("https://huggingface.co/", "huggingface.co/", "https://hf.co/", "hf.co/")
_MAX_LENGTH = 200


@dataclass(frozen=True, slots=True)
class ShortName:
    """A name of the catalog or of an installed model: `llama3.1:8b`."""

    name: str
    tag: str | None = None

    def __str__(self) -> str:
        return f"{self.name}:{self.tag}" if self.tag else self.name


@dataclass(frozen=True, slots=True)
class RepoName:
    """A Hub repository, with a file variant (`:Q8_0`), a compression (`:8bit`) or a revision where one is asked for."""

    org: str
    repo: str
    tag: str | None = None
    revision: str | None = None

    @property
    def repo_id(self) -> str:
        return f"{self.org}/{self.repo}"

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        revision = f"@{self.revision}" if self.revision else ""
        return f"{self.repo_id}{tag}{revision}"


@dataclass(frozen=True, slots=True)
class LocalPath:
    """A directory or a .gguf file on this machine."""

    path: Path

    def __str__(self) -> str:
        text = str(self.path)
        return text if text.startswith(("/", "./", "../", "~")) or text in (".", "..") else f"./{text}"


ModelId = ShortName | RepoName
ModelRef = ModelId | LocalPath


def as_word(text: str) -> str:
    """The text as the grammar's words are: what they cannot have becomes "-"."""
    text = re.sub(r"[^A-Za-z0-9._-]+", "-", text)
    return re.sub(r"([.-])[.-]+", r"\1", text).strip("._-")


def parse(text: str) -> ModelRef:
    """The reference that a name stands for. Raises InvalidName with what a name may look like."""
    text = text.strip()
    if text.startswith(("./", "../", "/", "~")) or text in (".", "..") or text.lower().endswith(".gguf"):
        return LocalPath(Path(text))
    if len(text) <= _MAX_LENGTH:
        if short := _SHORT.fullmatch(text):
            return ShortName(short["name"], short["tag"])
        bare = next((text[len(p) :] for p in _PREFIXES if text.startswith(p)), text).rstrip("/")
        if repo := _REPO.fullmatch(bare):
            return RepoName(repo["org"], repo["repo"], repo["tag"], repo["revision"])
    raise InvalidName(
        f"{text[:80]!r} is not a model name.",
        hint="Write a name like llama3.1:8b, a Hub repository like org/repo, or a path like ./model.gguf.",
        param="model",
    )
