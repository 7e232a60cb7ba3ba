"""What tests cost: the CPU time of each, with that of every process it started. `pytest -p tests.cost PATHS`.

Seconds of CPU differ less between runs than seconds on a clock, which say how busy the machine was. What a fixture of
a session or a module costs is counted where it was first used. With SAMPLE=2 only two tests of each function run, and
the others are taken to cost as much as the second.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

SHOWN = 60
_SAMPLE = int(os.environ.get("SAMPLE", "0"))
_TICKS = os.sysconf("SC_CLK_TCK")


class Costs:
    def __init__(self) -> None:
        self._costs: dict[str, list[float]] = defaultdict(list)
        self._counts: dict[str, int] = defaultdict(int)
        self._spent = 0.0
        self._collected = 0.0

    @pytest.hookimpl(trylast=True)  # what -m and -k leave
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        kept: list[pytest.Item] = []
        left: list[pytest.Item] = []
        for item in items:
            name = _function(item)
            self._counts[name] += 1
            (left if _SAMPLE and self._counts[name] > _SAMPLE else kept).append(item)
        items[:] = kept
        config.hook.pytest_deselected(items=left)

    def pytest_collection_finish(self) -> None:
        self._spent = self._collected = spent()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        done = yield
        now = spent()
        self._costs[_function(item)].append(now - self._spent)
        self._spent = now
        return done

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        functions = {each: sum(c) + c[-1] * (self._counts[each] - len(c)) for each, c in self._costs.items()}
        files: dict[str, list[str]] = defaultdict(list)
        for each in functions:
            files[each.partition("::")[0]].append(each)
        write = terminalreporter.write_line
        write(f"CPU: {sum(functions.values()):.1f} s, and {self._collected:.1f} s to collect")
        totals = {name: sum(functions[each] for each in inside) for name, inside in files.items()}
        for name in sorted(files, key=lambda each: -totals[each]):
            write(f"{totals[name]:8.2f} s {sum(self._counts[each] for each in files[name]):5} tests  {name}")
        for each in sorted(functions, key=lambda each: -functions[each])[:SHOWN]:
            write(f"{functions[each]:8.2f} s {self._counts[each]:5} tests  {each}")


def _function(item: pytest.Item) -> str:
    return item.nodeid.partition("[")[0]


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Costs())


def spent() -> float:
    """Seconds of CPU of this process, of those that it started, and of theirs."""
    times: dict[int, tuple[int, int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it has just ended: its parent has its time
            times[int(folder.name)] = int(fields[1]), sum(map(int, fields[11:15]))
    children: dict[int, list[int]] = defaultdict(list)
    for process, (parent, _) in times.items():
        children[parent].append(process)
    ticks, processes = 0, [os.getpid()]
    while processes:
        process = processes.pop()
        ticks += times[process][1]
        processes += children[process]
    return ticks / _TICKS
