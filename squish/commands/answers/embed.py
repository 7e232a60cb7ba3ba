"""`squish embed`: the vectors of texts, for scripts."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from squish import console
from squish.commands.answers.run import open_model
from squish.commands.completion import complete_model
from squish.commands.flags import Whole
from squish.config.settings import Settings
from squish.download import resolver
from squish.errors import InvalidInput, SquishError
from squish.files import write_whole

if TYPE_CHECKING:
    from squish.embeddings import EmbeddingRequest, Embeddings
    from squish.runtime import Runtime

_TOGETHER = 256  # texts of one request to the model


@click.command()
@click.argument("model", shell_complete=complete_model)
@click.argument("texts", nargs=-1, metavar="[TEXT]...")
@click.option("--file", "source", metavar="FILE", help="Read a text from each line of a file; - is stdin.")
@click.option("--format", "form", type=click.Choice(["jsonl", "npy"]), default="jsonl", show_default=True, help="How.")
@click.option("-o", "--output", metavar="FILE", help="Write to this file, completely or not at all.")
@click.option("--dimensions", type=Whole(1), help="Numbers of each vector: it is cut and scaled to length 1.")
@click.option("--prompt-name", help="Which of the model's own prompts to put before each text, such as query.")
@click.option("--truncate", is_flag=True, help="Cut a text that is too long.")
def embed(
    model: str,
    texts: tuple[str, ...],
    source: str | None,
    form: str,
    output: str | None,
    dimensions: int | None,
    prompt_name: str | None,
    truncate: bool,
) -> None:
    """Turn texts into vectors with an embedding model.

    \b
    squish embed sentence-transformers/all-MiniLM-L6-v2 "first text" "second text"
    squish embed all-minilm:l6 --file texts.txt > vectors.jsonl
    squish embed all-minilm:l6 --file texts.txt --format npy -o vectors.npy

    Each text gives a line with its index, its tokens and its vector; npy is a float32 array for numpy.
    """
    from squish.embeddings import EmbeddingRequest
    from squish.generation import TextPrompt

    if form == "npy" and output is None and sys.stdout.isatty():
        raise InvalidInput("npy is not for a terminal.", hint="Give a file with -o, or > FILE.", param="--output")
    chosen = _texts(texts, source)
    requests = [
        EmbeddingRequest(
            model,
            tuple(TextPrompt(text) for text in chosen[start : start + _TOGETHER]),
            dimensions=dimensions,
            prompt_name=prompt_name,
            truncate=truncate,
        )
        for start in range(0, len(chosen), _TOGETHER)
    ]
    resolver.run(_embed(Settings.from_environment(), model, requests, form, output))


async def _embed(
    settings: Settings, model: str, requests: list[EmbeddingRequest], form: str, output: str | None
) -> None:
    lines: list[str] = []
    parts: list[Embeddings] = []
    async with await open_model(settings, model, "embedding") as runtime:
        async for first, found in _answers(runtime, requests):
            if form == "npy":
                parts.append(found)
                continue
            for index in range(len(found.tokens)):
                line = _line(first + index, found, index)
                if output is None:
                    console.out(line)
                else:
                    lines.append(line)
    if form == "npy":
        _write(_npy(parts), output)
    elif output is not None:
        _write("".join(f"{line}\n" for line in lines).encode(), output)


async def _answers(runtime: Runtime, requests: list[EmbeddingRequest]) -> AsyncIterator[tuple[int, Embeddings]]:
    """The vectors of each request, with the place of its first text among all."""
    first = 0
    for request in requests:
        try:
            with console.Status().on_terminal(f"embedding with {request.model}…"):
                found = await runtime.sessions.embed(request)
        except InvalidInput as error:
            raise _placed(error, first) from error
        yield first, found
        first += len(request.inputs)


def _placed(error: InvalidInput, first: int) -> InvalidInput:
    """An error about one input with its place among all of them."""
    number = (error.param or "").removeprefix("input[").removesuffix("]")
    if error.param is None or not error.param.startswith("input["):
        return error
    place = f"input[{first + int(number)}]"
    return type(error)(error.message.replace(error.param, place), hint=error.hint, param=place)


def _texts(texts: tuple[str, ...], source: str | None) -> list[str]:
    """The texts that are given. Raises InvalidInput where there are none, or in two ways."""
    if texts and source is not None:
        raise InvalidInput("Give texts, or --file.", param="--file")
    if texts:
        return list(texts)
    if source is None and sys.stdin.isatty():
        raise InvalidInput("No text was given.", hint="Give texts after the model, or --file.", param="TEXT")
    found = _read(source).split("\n")
    if found[-1] == "":
        found.pop()
    if not found:
        raise InvalidInput("There is no text to embed.", param="--file")
    return [line.removesuffix("\r") for line in found]


def _read(source: str | None) -> str:
    if source in (None, "-"):
        return sys.stdin.read()
    try:
        return Path(source).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{source} is not UTF-8 text: byte {error.start} is not.", param="--file") from error
    except OSError as error:
        raise InvalidInput(f"{source} cannot be read: {error.strerror}.", param="--file") from error


def _line(place: int, found: Embeddings, index: int) -> str:
    vector = [float(f"{number:.9g}") for number in found.floats(index)]  # nine digits say a float32 exactly
    return json.dumps({"index": place, "tokens": found.tokens[index], "embedding": vector})


def _npy(parts: list[Embeddings]) -> bytes:
    """A table of float32 in the format of numpy, version 1.0: a header of Python's text, then the numbers."""
    rows, columns = sum(len(part.tokens) for part in parts), parts[0].dimensions
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {columns}), }}"
    start = b"\x93NUMPY\x01\x00"
    padded = header.ljust(-(-(len(start) + 2 + len(header) + 1) // 64) * 64 - len(start) - 3) + "\n"
    return b"".join([start, len(padded).to_bytes(2, "little"), padded.encode(), *(part.vectors for part in parts)])


def _write(content: bytes, output: str | None) -> None:
    if output is None:
        sys.stdout.flush()
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
        return
    try:
        write_whole(Path(output), content, durable=False)
    except OSError as error:
        raise SquishError(f"{output} cannot be written: {error.strerror}.") from error
    console.note(f"Written to {output}")
