"""`make mutants`: whether the tests of pure modules notice when the code is changed in one place.

Each mutant is one changed operator, number, text or condition in a function. It is put into the running functions of a
forked process, in which those of the module's own tests run that come through this function; a test that fails, or an
endless loop, has killed it. What only runs on import, annotations and the words of errors are left alone.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import inspect
import json
import os
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from types import CodeType, FrameType, FunctionType, ModuleType
from typing import Any

import pytest

from tests.arguments import count, one_of

MODULES: dict[str, tuple[str, ...]] = {
    "squish.text": ("tests/test_text.py",),
    "squish.figures": ("tests/test_figures.py",),
    "squish.names": ("tests/test_names.py",),
    "squish.files": ("tests/test_files.py",),
    "squish.config.durations": ("tests/config/test_durations.py",),
    "squish.models.drafts": ("tests/models/test_draft_pairs.py",),
    "squish.models.store": (
        *("tests/models/test_store_rules.py", "tests/models/test_store.py", "tests/models/test_move.py"),
        *("-k", "not kill and not processes and not readers and not another_process"),
    ),
    "squish.download.part_file": ("tests/download/test_part_file.py",),
    "squish.download.remote_file": ("tests/download/test_remote_file.py",),
    "squish.memory.fit": ("tests/memory/test_fit.py", "-k", "not near and not enough"),
    "squish.memory.shares": ("tests/memory/test_shares.py",),
    "squish.chats.chats": (
        *("tests/chats/test_chats.py", "tests/chats/test_kept.py", "tests/chats/test_tags.py"),
        *("-k", "not kill and not export and not migration"),
    ),
    "squish.chats.answer_format": ("tests/chats/test_parameters.py",),
    "squish.chats.defaults": ("tests/chats/test_defaults.py",),
    "squish.chats.export": ("tests/chats/test_export.py",),
    "squish.chats.importing": ("tests/chats/test_importing.py",),
    "squish.chats.messages": ("tests/chats/test_export.py", "tests/chats/test_chats.py", "-k", "not kill"),
    "squish.chats.presets": (
        "tests/chats/test_parameters.py",
        "tests/chats/test_templates.py",
        "tests/chats/test_defaults.py",
    ),
    "squish.chats.prompts": ("tests/chats/test_templates.py", "tests/chats/test_kept.py", "-k", "not kill"),
    "squish.chats.recorder": ("tests/chats/test_recorder.py", "tests/chats/test_parameters.py"),
    "squish.chats.rows": ("tests/chats/test_chats.py", "tests/chats/test_kept.py", "-k", "not kill and not export"),
    "squish.chats.search": ("tests/chats/test_chats.py", "tests/chats/test_tags.py", "-k", "not kill and not export"),
    "squish.chats.tags": ("tests/chats/test_tags.py",),
    "squish.chats.templates": ("tests/chats/test_templates.py",),
    "squish.config.keys": ("tests/config/test_settings.py",),
    "squish.api.clients.keys": ("tests/api/test_keys.py",),
    "squish.api.clients.limits": ("tests/api/test_keys.py",),
    "squish.api.batches.lines": ("tests/api/test_batch_lines.py",),
    "squish.system.sqlite_files": ("tests/system/test_sqlite_files.py",),
    "squish.sessions.turns": ("tests/sessions/test_queue.py",),
    "squish.tui.contrast": ("tests/tui/test_contrast.py",),
    "squish.tui.theme": ("tests/tui/test_contrast.py",),
    "squish.worker.output.row_output": ("tests/worker/output/test_output.py", "tests/worker/prompt/test_tools.py"),
    "squish.worker.output.markers": ("tests/worker/output/test_markers.py", "tests/worker/output/test_output.py"),
    "squish.worker.output.logprobs": ("tests/worker/output/test_logprobs.py", "tests/worker/output/test_output.py"),
    "squish.worker.sampling.samplers": ("tests/worker/sampling/test_sampling.py",),
    "squish.worker.sampling.processors": ("tests/worker/sampling/test_processors.py",),
    "squish.worker.pace": ("tests/worker/test_pace.py",),
    "squish.worker.prompt.turns": ("tests/worker/prompt/test_turns.py",),
    "squish.worker.speculation.budget": ("tests/worker/speculation/test_guessing.py",),
    "squish.worker.speculation.lookup": ("tests/worker/speculation/test_guessing.py",),
    "squish.worker.speculation.verify": ("tests/worker/speculation/test_guessing.py",),
    "squish.worker.speculation.same_tokens": ("tests/worker/speculation/test_draft_model.py",),
    "squish.worker.speculation.draft_model": ("tests/worker/speculation/test_draft_model.py",),
    "squish.worker.cache.branches": ("tests/worker/cache/test_branches.py",),
    "squish.worker.cache.prefix": (
        "tests/worker/cache/test_prefix.py",
        "tests/worker/cache/test_disk.py",
        "tests/worker/cache/test_saving.py",
    ),
    "squish.worker.cache.disk": ("tests/worker/cache/test_disk.py",),
    "squish.worker.cache.cache_file": ("tests/worker/cache/test_disk.py",),
    "squish.worker.cache.saving": (
        *("tests/worker/cache/test_saving.py", "tests/worker/cache/test_disk.py"),
        *("-k", "step or hangs or seconds or unsaved"),
    ),
}

_COMPARE: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
_ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.FloorDiv: ast.Mult, ast.Div: ast.Mult,
    ast.Mod: ast.Mult, ast.LShift: ast.RShift, ast.RShift: ast.LShift, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip


# A process runs pytest for one module after another, and finds its plugins imported from the second time on.
_ALONE = (
    "-s",
    "-q",
    "-p",
    "no:cacheprovider",
    "-p",
    "no:xdist",
    "-W",
    "ignore::pytest.PytestAssertRewriteWarning",
)


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change. codes: what each function of the module has to run for it, by qualified name."""

    line: int
    change: str
    codes: dict[str, CodeType]


def mutants(source: str, path: str) -> Iterator[Mutant]:
    """Every mutant of a module's source."""
    tree = ast.parse(source)
    for function in _functions(tree):
        for node in _inside(function):
            yield from _of(node, tree, path)


def _functions(node: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """The functions of a module and of its classes; one inside another is a part of it."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield child
        elif isinstance(child, ast.ClassDef | ast.If | ast.Try):
            yield from _functions(child)


def _inside(node: ast.AST) -> Iterator[ast.AST]:
    """What runs in a function."""
    parts = node.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) else ast.iter_child_nodes(node)
    for child in parts:
        if isinstance(child, ast.Raise | ast.Assert | ast.JoinedStr | ast.Import | ast.ImportFrom):
            continue
        if isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant):  # a docstring
            continue
        if isinstance(node, ast.AnnAssign) and child is node.annotation:
            continue
        yield child
        yield from _inside(child)


def _of(node: ast.AST, tree: ast.Module, path: str) -> Iterator[Mutant]:
    match node:
        case ast.Compare():
            for at, operator in enumerate(node.ops):
                yield _changed(node.ops, at, _COMPARE[type(operator)](), node, tree, path)
        case ast.BinOp() if type(node.op) in _ARITHMETIC:
            yield _changed(vars(node), "op", _ARITHMETIC[type(node.op)](), node, tree, path)
        case ast.AugAssign() if type(node.op) in _ARITHMETIC:
            yield _changed(vars(node), "op", _ARITHMETIC[type(node.op)](), node, tree, path)
        case ast.BoolOp():
            yield _changed(vars(node), "op", ast.Or() if isinstance(node.op, ast.And) else ast.And(), node, tree, path)
        case ast.UnaryOp(op=ast.Not()):
            yield _changed(vars(node), "operand", ast.UnaryOp(ast.Not(), node.operand), node, tree, path)
        case ast.If() | ast.While() | ast.IfExp():
            negated = ast.UnaryOp(ast.Not(), node.test)
            yield _changed(vars(node), "test", negated, node.test, tree, path)
        case ast.Break():
            pass  # its `continue` is an endless loop, which says nothing of the tests
        case ast.Constant():
            if (other := _other(node.value)) is not None:
                yield _changed(vars(node), "value", other, node, tree, path)


def _other(value: object) -> object:
    """Another constant; None where there is none."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, str):
        return f"{value}?" if value else None
    return value + b"?" if isinstance(value, bytes) and value else None


def _changed(where: Any, key: Any, new: Any, node: ast.AST, tree: ast.Module, path: str) -> Mutant:
    """The mutant in which `where[key]`, at or in a node, is something else; the tree is afterwards as it was."""
    before, old = ast.unparse(node), where[key]
    where[key] = new
    after = ast.unparse(new if key == "test" else node)
    code = compile(ast.fix_missing_locations(tree), path, "exec")
    where[key] = old
    return Mutant(getattr(node, "lineno", 0), f"{before}  →  {after}", dict(_codes(code)))


def _codes(code: CodeType) -> Iterator[tuple[str, CodeType]]:
    for each in code.co_consts:
        if isinstance(each, CodeType):
            yield each.co_qualname, each
            yield from _codes(each)


def running(module: ModuleType) -> dict[str, FunctionType]:
    """The functions and methods of a module, without what is wrapped around them, by qualified name."""
    found: dict[str, FunctionType] = {}

    def look(value: Any) -> None:
        for inner in (getattr(value, name, None) for name in ("fget", "__func__", "func")):
            if inner is not None:
                look(inner)
        value = inspect.unwrap(value) if callable(value) else value
        if isinstance(value, FunctionType) and value.__module__ == module.__name__:
            found[value.__code__.co_qualname] = value
        elif isinstance(value, type) and value.__module__ == module.__name__:
            for each in vars(value).values():
                look(each)

    for value in list(vars(module).values()):
        look(value)
    return found


class Examiner:
    """A plugin of pytest that runs what was collected in forks: once as it is, and with each mutant what comes near it.

    Tests are imported before the forks and run in them only: threads of MLX, which the first array starts, do not
    survive one. every: of the mutants one of so many is looked at. survivors: a line for each mutant that no test
    noticed, reported as they are found.
    """

    def __init__(self, module: ModuleType, report: Callable[[str], None], every: int = 1) -> None:
        self.total = 0
        self.survivors: list[str] = []
        self.fails = False  # before anything is changed
        self._file = inspect.getfile(module)
        self._functions = running(module)
        self._report = report
        self._patience = 0.0  # seconds by the clock, after which a test waits for a lock that nobody releases
        self._every = every

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        with tempfile.TemporaryDirectory() as folder:
            found, before = Path(folder, "found"), used(resource.RUSAGE_CHILDREN)
            unread = session.testsfailed or not session.items  # no test of what cannot be imported notices anything
            self.fails = bool(unread) or not succeeds(partial(self._record, session, found), seconds=600)
            by_test: dict[str, list[str]] = {}
            if not self.fails:
                self._patience, by_test = json.loads(found.read_text())
        seconds = 5 + 5 * (used(resource.RUSAGE_CHILDREN) - before)
        path = Path(self._file).relative_to(Path.cwd())
        made = iter(()) if self.fails else mutants(path.read_text(encoding="utf-8"), str(path))
        for mutant in islice(made, 0, None, self._every):
            self.total += 1
            codes = dict(self._changed(mutant))
            items = [item for item in session.items if not codes.keys().isdisjoint(by_test[item.nodeid])]
            items.sort(key=lambda item: getattr(getattr(item, "obj", None), "is_hypothesis_test", False))
            if succeeds(partial(self._passes, session, items, codes), seconds):
                self.survivors.append(f"{path}:{mutant.line}: {mutant.change}")
                self._report(f"  {self.survivors[-1]}")
        return True

    def _changed(self, mutant: Mutant) -> Iterator[tuple[str, CodeType]]:
        for name, code in mutant.codes.items():
            now = self._functions[name].__code__ if name in self._functions else None
            if now is not None and code != now and code.co_freevars == now.co_freevars:
                yield name, code

    def _passes(self, session: pytest.Session, items: list[pytest.Item], codes: dict[str, CodeType]) -> bool:
        """Whether these tests notice nothing of these codes."""
        for name, code in codes.items():
            self._functions[name].__code__ = code
        return all(_runs(session, item, self._patience) for item in items)

    def _record(self, session: pytest.Session, found: Path) -> bool:
        """Run all tests, and write down which functions each comes through, in any of its threads."""
        by_test, slowest = {}, 0.0
        for item in session.items:
            names: set[str] = set()

            def called(frame: FrameType, event: str, _: object, names: set[str] = names) -> None:
                if event == "call" and frame.f_code.co_filename == self._file:
                    names.add(frame.f_code.co_qualname)

            threading.setprofile(called)
            sys.setprofile(called)
            began = time.monotonic()
            passed = _runs(session, item, 0)
            slowest = max(slowest, time.monotonic() - began)
            sys.setprofile(None)
            if not passed:
                return False
            by_test[item.nodeid] = sorted(names)
        found.write_text(json.dumps((60 + 10 * slowest, by_test)))  # the machine may be as busy with each mutant
        return True


def _runs(session: pytest.Session, item: pytest.Item, patience: float) -> bool:
    """Whether a test passes. patience: seconds by the clock; 0 is as many as it takes."""
    item.add_marker(pytest.mark.timeout(patience), append=False)
    session.config.hook.pytest_runtest_protocol(item=item, nextitem=None)
    return not session.testsfailed


def succeeds(run: Callable[[], bool], seconds: int) -> bool:
    """Whether `run` says so in a process of its own. seconds: of CPU, after which it is an endless loop."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1] == 0
    resource.setrlimit(resource.RLIMIT_CPU, (used(resource.RUSAGE_SELF) + seconds, resource.RLIM_INFINITY))
    os._exit(0 if run() else 1)


def used(by: int) -> int:
    """Seconds of CPU, rounded up."""
    spent = resource.getrusage(by)
    return int(spent.ru_utime + spent.ru_stime) + 1


def examine(name: str, tests: tuple[str, ...], every: int) -> tuple[int, list[str]]:
    """How many mutants a module has, and the survivors. Raises SystemExit where its tests fail without any."""
    said = sys.stdout
    examiner = Examiner(importlib.import_module(name), lambda line: print(line, file=said, flush=True), every)
    with tempfile.TemporaryDirectory() as folder, Path(os.devnull).open("w") as nowhere:
        with redirect_stdout(nowhere), redirect_stderr(nowhere):
            pytest.main([*_ALONE, f"--basetemp={folder}/tests", *tests], plugins=[examiner])
    if examiner.fails or not examiner.total:
        sys.exit(f"The tests of {name} fail before anything is changed: {' '.join(tests)}")
    return examiner.total, examiner.survivors


def main() -> None:
    parser = argparse.ArgumentParser(prog="make mutants")
    parser.add_argument("modules", nargs="*", type=one_of(MODULES), help="all, if none is named")
    parser.add_argument("--every", type=count, default=1, metavar="N", help="only one of N mutants: a sample (1)")
    os.environ.setdefault("HYPOTHESIS_PROFILE", "short")
    options = parser.parse_args()
    chosen = options.modules or list(MODULES)
    everything = killed = 0
    for name in chosen:
        total, survivors = examine(name, MODULES[name], options.every)
        everything, killed = everything + total, killed + total - len(survivors)
        print(f"{name}: {total - len(survivors)} of {total} killed", flush=True)
    print(f"{killed} of {everything} killed, {killed / max(everything, 1):.0%}")


if __name__ == "__main__":
    main()
