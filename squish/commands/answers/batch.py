"""`squish batch`: many requests in a file, answered into another one; what was stopped goes on where it was."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click
import msgspec

from squish import console, figures
from squish.commands.exits import Exit
from squish.config.settings import Settings
from squish.download import resolver
from squish.errors import InvalidInput, ModelNotFound
from squish.files import open_regular
from squish.models.store import Store

if TYPE_CHECKING:
    from squish.api.batches.lines import Item, Line, SettledLine
    from squish.api.batches.run import Output

_SHOWN_PROBLEMS = 5


@click.command()
@click.argument("source", metavar="FILE")
@click.option("-o", "--output", required=True, metavar="FILE", help="Where each answer is appended as it comes.")
def batch(source: str, output: str) -> int:
    """Answer a file of requests in the format of OpenAI's Batch API.

    Each line is a JSON object.

    \b
    squish batch requests.jsonl -o answers.jsonl

    \b
    {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions",
     "body": {"model": "smollm2:135m", "messages": [{"role": "user", "content": "Hi"}]}}

    (on one line). /v1/completions and /v1/embeddings work as well. Answers come in no fixed order, each with its
    custom_id. Run the same command again to continue, and to retry what the engine failed at. The exit code is 1 if
    requests were refused or failed.
    """
    from squish.api.batches.run import Output

    settings = Settings.from_environment()
    requests = _Requests(Path(source))
    store = Store(settings.cache_dir)
    for model, request in sorted(requests.models.items()):
        try:
            store.find(model)
        except ModelNotFound as error:
            hint = f"{error.hint or ''} Nothing was answered.".strip()
            raise ModelNotFound(f"{source}, request {request[:80]!r}: {error.message}", hint=hint) from None
    with Output(Path(output)) as into:
        todo = requests.without(into.settled, into.path)
        progress = _Progress(requests.total, into.settled)
        try:
            resolver.run(_answer(settings, todo, into, progress))
        except KeyboardInterrupt:
            console.note_over_status(
                f"Stopped at {progress.done} of {requests.total}. Run the same command to continue."
            )
            return Exit.INTERRUPTED
    progress.end(output)
    return Exit.FAILED if progress.failed else Exit.DONE


async def _answer(settings: Settings, todo: Iterator[Item], output: Output, progress: _Progress) -> None:
    from squish.api.batches.answers import Answers
    from squish.api.batches.run import run
    from squish.api.telemetry.opening import open_collector
    from squish.runtime import Runtime

    collector = open_collector(settings, os.environ)
    async with Runtime(settings) as runtime:
        answers = Answers(runtime.sessions, "squish batch", collector=collector)
        progress.tokens = answers.tokens

        def write(line: Line) -> None:
            output.write(line)
            progress.add(line)

        try:
            await run(todo, answers.line, write, settings.max_concurrency)
        finally:
            if collector:
                await collector.close()


class _Requests:
    """The input: read once to check every line before the first is answered. Raises InvalidInput naming the line."""

    def __init__(self, path: Path) -> None:
        from squish.api.batches.lines import items, problems

        self._path = path
        with self._open() as file:
            if found := problems(file, most=_SHOWN_PROBLEMS):
                told = "\n        ".join(f"line {each.line}: {each.message}" for each in found)
                raise InvalidInput(f"{path}, {told}", hint="Nothing was answered.", param="FILE")
            file.seek(0)
            self._marks: dict[str, str] = {}  # by custom_id
            self.models: dict[str, str] = {}  # and the first request that names each
            for item in items(file):
                self._marks[item.custom_id] = item.mark
                self.models.setdefault(_model(item), item.custom_id)
        self.models.pop("", None)
        self.total = len(self._marks)

    def without(self, done: Collection[SettledLine], output: Path) -> Iterator[Item]:
        """Those that are still to be answered. Raises InvalidInput where what is done belongs to other requests."""
        from squish.api.batches.lines import answers

        ids = {line.custom_id for line in done}
        problem = ""
        if unknown := ids - self._marks.keys():
            problem = f"has answers to other requests, such as {min(unknown)[:80]!r}"
        elif changed := {line.custom_id for line in done if not answers(line, self._marks[line.custom_id])}:
            problem = f"has an answer to another request that was called {min(changed)[:80]!r}"
        if problem:
            raise InvalidInput(f"{output} {problem}.", hint="Give another file for the answers.", param="--output")
        return self._left(ids)

    def _left(self, done: set[str]) -> Iterator[Item]:
        from squish.api.batches.lines import items

        with self._open() as file:
            yield from (item for item in items(file) if item.custom_id not in done)

    def _open(self) -> BinaryIO:
        try:
            return open_regular(self._path)
        except OSError as error:
            raise InvalidInput(f"{self._path} cannot be read: {error.strerror}.", param="FILE") from error


class _Progress:
    """How far it is, for whoever watches."""

    def __init__(self, total: int, settled: list[SettledLine]) -> None:
        from squish.api.batches.lines import Tokens

        self.total, self.done = total, len(settled)
        self.failed = sum(not line.is_answer for line in settled)
        self.tokens = Tokens()  # of this run
        self._earlier = Tokens()
        for line in settled:
            self._earlier.add(line.tokens)
        self._began = 0.0  # when the first answer of this run had come: before that, models are loaded
        self._before = self._tokens_before = 0
        self._status = console.Status()
        if self.done:
            console.note(f"{self.done} of {total} are answered already.")

    def add(self, line: Line) -> None:
        self.done += 1
        self.failed += not line.is_answer
        if not self._began:
            self._began, self._before, self._tokens_before = time.monotonic(), self.done, self.tokens.completion
        self._status.show(self._line())

    def end(self, output: str) -> None:
        self._status.clear()
        refused = f", {self.failed} of them with an error" if self.failed else ""
        console.note(f"{self.done} of {self.total} answered{refused}: {output}")
        spent = self._earlier
        spent.add(self.tokens)
        if spent.prompt:
            console.note(
                f"Tokens: {figures.count(spent.prompt)} of prompts ({figures.count(spent.cached)} of them cached), "
                f"{figures.count(spent.completion)} of answers."
            )

    def _line(self) -> str:
        seconds = time.monotonic() - self._began
        rate = (self.done - self._before) / seconds if seconds else 0.0
        parts = [f"{figures.bar(self.done / self.total, 24)} {self.done} of {self.total}"]
        if self.failed:
            parts.append(f"{self.failed} with an error")
        if (tokens := self.tokens.completion - self._tokens_before) and seconds:
            parts.append(figures.speed(tokens / seconds))
        if rate:
            parts.append(f"{figures.waited((self.total - self.done) / rate)} left")
        return "  ".join(parts)


def _model(item: Item) -> str:
    """The model that a request names; what is wrong with it is said in its answer."""
    try:
        return msgspec.json.decode(item.body, type=_Named).model
    except msgspec.ValidationError:
        return ""


class _Named(msgspec.Struct):
    model: str = ""
