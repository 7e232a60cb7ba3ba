"""`squish embed` as a script uses it, and what the other commands say of an embedding model."""

from __future__ import annotations

import json
import math
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest

from tests.conftest import EMBEDDING_MODEL, clean_environment

Squish = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def embedding_squish(embedding_home: Path, tmp_path: Path, forked: Squish) -> Squish:
    """Runs the program as a user of the embedding model would, in a folder of its own."""
    environment = clean_environment(embedding_home) | {"SQUISH_OFFLINE": "1"}

    def run(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return forked(arguments, environment, tmp_path, stdin.encode())

    return run


def lines(output: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines()]


def test_each_line_has_a_vector_and_npy_has_the_same(embedding_squish: Squish, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("first\r\n\nthird", encoding="utf-8")
    done = embedding_squish("embed", EMBEDDING_MODEL, "--file", "texts.txt", "--dimensions", "8")
    assert (done.returncode, done.stderr) == (0, "")
    found = lines(done.stdout)
    assert [(each["index"], each["tokens"], len(each["embedding"])) for each in found] == [
        (0, 3, 8),
        (1, 2, 8),
        (2, 3, 8),
    ]
    assert math.hypot(*found[0]["embedding"]) == pytest.approx(1)

    packed = embedding_squish(
        "embed", EMBEDDING_MODEL, "--dimensions", "8", "--format", "npy", "-o", "v.npy", stdin="first\n\nthird\n"
    )
    assert (packed.returncode, packed.stdout, packed.stderr) == (0, "", "Written to v.npy\n")
    table = numpy.load(tmp_path / "v.npy")
    assert table.dtype == numpy.float32
    assert table.tolist() == [numpy.float32(each["embedding"]).tolist() for each in found]


def test_a_text_that_is_too_long_is_named_by_its_line(embedding_squish: Squish) -> None:
    texts = "\n".join(["a"] * 300 + ["word " * 300])
    done = embedding_squish("embed", EMBEDDING_MODEL, "--file", "-", stdin=texts)
    assert done.returncode == 2
    assert "input[300] has at least 302 tokens; this model takes 256." in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--file", "nowhere.txt"), "nowhere.txt cannot be read"),
        (("text", "--file", "-"), "Give texts, or --file"),
        (("--file", "-"), "no text to embed"),
        (("text", "--prompt-name", "query"), "no prompt named 'query'"),
    ],
)
def test_what_makes_no_sense_is_refused(embedding_squish: Squish, arguments: tuple[str, ...], problem: str) -> None:
    done = embedding_squish("embed", EMBEDDING_MODEL, *arguments, stdin="")
    assert done.returncode == 2 and problem in done.stderr and done.stdout == ""


def test_the_kind_is_shown_and_chat_is_refused(embedding_squish: Squish) -> None:
    assert embedding_squish("list").stdout.splitlines()[1].split()[:2] == [EMBEDDING_MODEL, "embedding"]
    assert json.loads(embedding_squish("list", "--json").stdout)[0]["kind"] == "embedding"
    shown = embedding_squish("show", EMBEDDING_MODEL).stdout
    assert "kind          embedding model" in shown and "chat template" not in shown
    for command in (("run", EMBEDDING_MODEL, "--prompt", "Hi"), ("bench", EMBEDDING_MODEL)):
        refused = embedding_squish(*command)
        assert refused.returncode == 2 and f"{EMBEDDING_MODEL} is an embedding model" in refused.stderr, command


def test_a_model_that_answers_makes_no_vectors(squish: Squish) -> None:
    done = squish("embed", "smollm2:135m", "text")
    assert done.returncode == 2 and "smollm2:135m is not an embedding model" in done.stderr


def test_an_output_that_cannot_be_written_is_said(embedding_squish: Squish, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    done = embedding_squish("embed", EMBEDDING_MODEL, "text", "-o", "taken")
    assert done.returncode == 1 and "taken cannot be written" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]
