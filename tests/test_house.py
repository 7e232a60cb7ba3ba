"""The house rules that a machine can check: sizes, prints, what a command imports."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from squish.commands import by_name

PACKAGE = Path(__file__).parent.parent / "squish"
FILES = sorted(PACKAGE.rglob("*.py"))

FILE_WALL = 400
FUNCTION_SCREEN = 50
FORBIDDEN_NAMES = {"utils.py", "common.py", "helpers.py", "types.py", "misc.py"}


@dataclass(frozen=True, slots=True)
class Module:
    """What these tests look at in a file. faults: what is too large in it, or missing."""

    faults: tuple[str, ...]
    public_classes: tuple[str, ...]
    renames: bool
    replaces_mlx: bool


@cache
def modules() -> dict[str, Module]:
    """By its path in the package, every file; each is parsed once."""
    return {path.relative_to(PACKAGE).as_posix(): module(path) for path in FILES}


def module(path: Path) -> Module:
    source = path.read_text(encoding="utf-8")
    tree = ast.parse(source)
    nodes = list(ast.walk(tree))
    public = [node.name for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]
    faults = tuple(faults_of(path, source, tree, nodes))
    return Module(faults, tuple(public), renames(nodes), replaces_mlx(nodes))


def faults_of(path: Path, source: str, tree: ast.Module, nodes: Sequence[ast.AST]) -> Iterator[str]:
    if not ast.get_docstring(tree):
        yield "the module has no docstring"
    if (lines := len(source.splitlines())) > FILE_WALL:
        yield f"the file has {lines} lines"
    if path.name in FORBIDDEN_NAMES:
        yield "the file's name says nothing"
    for node in nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            if length > FUNCTION_SCREEN:
                yield f"{node.name} has {length} lines"


def test_every_file_is_small_and_opens_by_saying_what_it_owns() -> None:
    assert len(modules()) > 300
    assert {name: found.faults for name, found in modules().items() if found.faults} == {}


def loaded_by(*arguments: str, home: Path) -> set[str]:
    """The modules in the process after `squish ARGUMENTS` has run."""
    program = (
        "import json, sys, squish.cli as c\n"
        "sys.argv = ['squish', *json.loads(sys.argv[1])]\n"
        "c.run_guarded(lambda: c.cli.main(standalone_mode=False))\n"
        "print('\\n' + json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", program, json.dumps(arguments)],
        capture_output=True,
        text=True,
        env={"HOME": str(home), "PATH": ""},
        check=True,
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


HEAVY = {"mlx", "mlx_lm", "transformers", "numpy", "llguidance", "sanic", "textual", "huggingface_hub"}


@pytest.mark.parametrize("arguments", [("--help",), ("list",), ("list", "--json"), ("rm", "nothing:1b")])
def test_a_light_command_loads_nothing_heavy(arguments: tuple[str, ...], tmp_path: Path) -> None:
    assert loaded_by(*arguments, home=tmp_path) & HEAVY == set()


@pytest.mark.parametrize("arguments", [("list",), ("run", "--help"), ("nothing",)])
def test_a_command_pays_for_the_import_of_no_other(arguments: tuple[str, ...], tmp_path: Path) -> None:
    of_all = {f"squish.commands.{place.partition(':')[0]}" for place in by_name.PLACES.values()}
    own = {"list": {"models.installed"}, "run": {"answers.run", "models.pull"}, "nothing": set[str]()}[arguments[0]]
    found = loaded_by(*arguments, home=tmp_path) & of_all
    assert {each.removeprefix("squish.commands.") for each in found} == own | {"completion"}


def test_the_front_process_never_imports_mlx(tmp_path: Path) -> None:
    program = (
        "import importlib, pkgutil, sys, squish\n"
        "for found in pkgutil.walk_packages(squish.__path__, 'squish.', onerror=lambda name: None):\n"
        "    if not found.name.startswith(('squish.worker', 'squish.__main__')):\n"
        "        importlib.import_module(found.name)\n"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) & {"mlx", "mlx_lm", "transformers", "numpy", "llguidance"} == set()


def test_a_dozen_modules_at_the_top() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= 12


def scope_of(name: str) -> str:
    """A dialect of the API has names of its own, which its protocol gave it; the rest of Squish shares one."""
    folder = (PACKAGE / name).parent
    return str(folder) if (folder / "dialect.py").is_file() and folder != PACKAGE / "api" else "squish"


def test_a_public_class_has_a_name_of_its_own() -> None:
    found: dict[tuple[str, str], list[str]] = {}
    for path, module in modules().items():
        for name in module.public_classes:
            found.setdefault((scope_of(path), name), []).append(path)
    assert {name: places for (_, name), places in found.items() if len(places) > 1} == {}


# Who renames a file that somebody else wrote: a cache that MLX saved, the log, a name among files that are complete.
RENAMES = {"worker/cache/disk.py", "worker/cpu/build.py", "worker/jobs/quantize.py", "tui/terminal/guard.py"}


def renames(nodes: Sequence[ast.AST]) -> bool:
    """Whether a module says `path.replace(other)`."""
    return any(
        isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and call.func.attr == "replace"
        and len(call.args) == 1
        and not call.keywords
        for call in nodes
    )


def test_files_are_put_in_their_places_by_one_function() -> None:
    """`path.replace(other)` stands in files.py: what is written is there whole or not at all, in one way."""
    assert {name for name, found in modules().items() if found.renames} == RENAMES | {"files.py"}


# Besides worker/cpu: what mlx-lm reads of config.json, and the limit of wired memory that it would set.
REPLACES_MLX = {"worker/model/model_files.py", "worker/memory.py"}


def replaces_mlx(nodes: Sequence[ast.AST]) -> bool:
    """Whether a module sets a name of MLX or mlx-lm, as `mx.fast.rope = rope` does."""
    imports = [node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]
    theirs = {
        (alias.asname or alias.name).partition(".")[0]
        for node in imports
        for alias in node.names
        if (getattr(node, "module", None) or alias.name).startswith("mlx")
    }

    def is_theirs(value: ast.expr | None) -> bool:
        if isinstance(value, ast.Call) and "import_module" in ast.unparse(value.func):
            return "mlx" in ast.unparse(value)
        while isinstance(value, ast.Attribute):
            value = value.value
        return isinstance(value, ast.Name) and value.id in theirs

    assigned = [
        (target, node.value)
        for node in nodes
        if isinstance(node, ast.Assign | ast.AnnAssign)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
    ]
    theirs |= {target.id for target, value in assigned if isinstance(target, ast.Name) and is_theirs(value)}
    return any(isinstance(target, ast.Attribute) and is_theirs(target) for target, _ in assigned)


def test_what_replaces_parts_of_mlx_is_known_and_documented() -> None:
    found = {name for name, module in modules().items() if module.replaces_mlx}
    assert {name for name in found if not name.startswith("worker/cpu/")} == REPLACES_MLX
    page = (PACKAGE.parent / "docs" / "architecture.md").read_text("utf-8").partition("## What is replaced in MLX")[2]
    assert [name for name in found if f"`{name.removeprefix('worker/') if 'cpu/' in name else name}`" not in page] == []
    assert {"worker/cpu/functions.py", "worker/cpu/attention.py", "worker/cpu/rotary.py"} <= found


# Words that a native speaker would not write. "There is no …" is English; "x is no file" is not.
ODD = re.compile(r"(?<!there )\bis no [a-z]+\b|\bmend(s|ed|ing)?\b|\bfor ever\b", re.IGNORECASE)
PAGES = [*PACKAGE.parent.glob("*.md"), *(PACKAGE.parent / "docs").rglob("*.md")]


def test_the_prose_is_plain_english() -> None:
    assert len(PAGES) > 20
    odd = [
        f"{path.relative_to(PACKAGE.parent)}:{number}: {line}"
        for path in (*FILES, *PAGES)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if ODD.search(line)
    ]
    assert odd == []
