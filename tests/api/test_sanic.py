"""What Squish uses of Sanic's insides is in a table of docs/architecture.md, and the installed Sanic still has it."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import tomllib
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from sanic.config import DEFAULT_CONFIG
from sanic.http import Http
from sanic.server import HttpProtocol

ROOT = Path(__file__).parent.parent.parent
API = ROOT / "squish" / "api"
PUBLIC = {"sanic", "sanic.exceptions", "sanic.handlers", "sanic.response", "sanic.server"}
NOT_SANICS = {"close", "ctx", "send", "app", "version"}
"""Names that our own objects and asyncio's have too."""


def table() -> dict[type, set[str]]:
    """The classes of Sanic and the names of each, as the page has them."""
    found: dict[type, set[str]] = {}
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    for path, names in re.findall(r"^\| `(sanic[\w.]*\.[A-Z]\w+)` \| (.*?) \|", page, re.MULTILINE):
        module, _, name = path.rpartition(".")
        found.setdefault(getattr(importlib.import_module(module), name), set()).update(re.findall(r"`(\w+)`", names))
    return found


def attributes(path: Path) -> Iterator[ast.Attribute]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return (node for node in ast.walk(tree) if isinstance(node, ast.Attribute))


def has(cls: type, name: str) -> bool:
    """Whether objects of this class of Sanic's have it, declared or set on the way."""
    sources = (inspect.getsource(base) for base in cls.__mro__ if base.__module__.startswith("sanic"))
    return (
        hasattr(cls, name)
        or name in DEFAULT_CONFIG
        or any(re.search(rf"\bself\.{name}\b", source) for source in sources)
    )


def test_the_installed_sanic_has_every_name_of_the_table() -> None:
    assert len(table()) == 7
    missing = [f"{cls.__name__}.{name}" for cls, names in table().items() for name in names if not has(cls, name)]
    assert not missing


def test_the_table_has_every_name_that_is_used() -> None:
    known = set().union(*table().values())
    insides = {name for cls in (Http, HttpProtocol) for name in dir(cls) if not name.startswith("__")} - NOT_SANICS
    used = {node.attr for path in (API / "transport").glob("*.py") for node in attributes(path)}
    overridden = {
        each.name
        for path in (API / "transport").glob("*.py")
        for each in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert (used | overridden) & insides <= known
    assert known <= used | overridden | NOT_SANICS | {"HTTP_CLASS", "close_if_idle"}, "the table has what nobody uses"


def test_only_the_transport_reaches_into_sanic() -> None:
    for path in set(API.rglob("*.py")) - set((API / "transport").glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        modules = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert {module for module in modules if module.partition(".")[0] == "sanic"} <= PUBLIC, path
        for node in attributes(path) if "sanic" in modules else ():
            of_request = isinstance(node.value, ast.Name) and node.value.id == "request"
            assert not (of_request and (node.attr in ("stream", "transport", "protocol") or node.attr[0] == "_")), path


def test_sanic_is_pinned_to_the_version_that_is_tested() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert f"sanic=={version('sanic')}" in project["dependencies"]
    assert f"\nsanic=={version('sanic')} " in (ROOT / "requirements.lock").read_text(encoding="utf-8")
