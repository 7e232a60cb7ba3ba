"""Bytes that are not UTF-8: in an argument, a variable or a path they are named; beside the models they do no harm."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from squish.config.keys import KEYS
from squish.config.settings import Settings
from squish.doctor import models as doctor
from squish.errors import InvalidInput
from squish.text import is_utf8, require_utf8
from tests.conftest import Run, clean_environment
from tests.local_hub import tiny_model

BYTES = b"a\xff\xfe"


@pytest.fixture
def squish(forked: Run, tmp_path: Path) -> Callable[..., str]:
    """Runs the program as a user would; its code and all that it said."""

    def run(*command: str | bytes, stdin: bytes = b"", at: bytes | None = None, **variables: bytes) -> str:
        environment = clean_environment(tmp_path) | {"SQUISH_OFFLINE": "1"}
        environment |= {name: os.fsdecode(value) for name, value in variables.items()}
        done = forked([os.fsdecode(word) for word in command], environment, os.fsdecode(at or b"."), stdin)
        said = done.stdout + done.stderr
        assert "Something unexpected" not in said and "Traceback" not in said
        return f"{done.returncode} {said}"

    return run


@pytest.mark.parametrize(
    "command",
    [
        ("pull", BYTES), ("pull", b"./" + BYTES + b".gguf"), ("pull", "smollm2:135m", "--name", BYTES),
        ("run", BYTES), ("run", "m", "--prompt", BYTES), ("run", "m", "--system", BYTES), ("serve", "--host", BYTES),
        ("show", BYTES), ("cp", "a", BYTES), ("rm", BYTES), ("verify", BYTES), ("search", BYTES), ("catalog", BYTES),
        ("bench", BYTES), ("stop", BYTES), ("chats", "show", BYTES), ("config", "show", BYTES), (BYTES,),
        ("list", b"--" + BYTES),
    ],
    ids=repr,
)  # fmt: skip
def test_an_argument_is_named(squish: Callable[..., str], command: tuple[str | bytes, ...]) -> None:
    said = squish(*command)
    assert said.startswith("2 ") and "'a??" in said.replace("./", "").replace("--", "")
    assert "not UTF-8" in said


@pytest.mark.parametrize("variable", [key.variable for key in KEYS])
def test_a_variable_is_named(squish: Callable[..., str], variable: str) -> None:
    assert squish("list", **{variable: BYTES}).startswith(f"2 squish: {variable} has bytes that are not UTF-8.")


def test_a_place_is_named(squish: Callable[..., str], tmp_path: Path) -> None:
    place = os.fsencode(tmp_path) + b"/" + BYTES
    os.mkdir(place)  # noqa: PTH102  a name that no Path writes
    assert "HOME has bytes that are not UTF-8" in squish("list", HOME=place)
    assert "SQUISH_CACHE_DIR has bytes that are not UTF-8" in squish("list", SQUISH_CACHE_DIR=b"x", at=place)
    with open(place + b"/m.gguf", "wb") as file:  # noqa: PTH123
        file.write(b"GGUF")
    said = squish("pull", "./m.gguf", at=place)
    assert said.startswith("2 ") and "The path" in said and "not UTF-8" in said


def test_a_file_of_a_model_is_named(squish: Callable[..., str], tmp_path: Path) -> None:
    source = tmp_path / "model"
    source.mkdir()
    for name, content in tiny_model().items():
        (source / name).write_bytes(content)
    with open(os.fsencode(source) + b"/" + BYTES + b".json", "wb") as file:  # noqa: PTH123
        file.write(b"{}")
    said = squish("pull", str(source))
    assert "has a file whose name is not safe to store: 'a??.json'" in said and "Rename it" in said


def test_directories_beside_the_models_are_no_harm(squish: Callable[..., str], tmp_path: Path) -> None:
    store = os.fsencode(tmp_path / ".squish" / "models")
    for directory in (store + b"/" + BYTES, store + b"/.partial/" + BYTES):
        os.makedirs(directory)  # noqa: PTH103
        with open(directory + b"/file", "wb") as file:  # noqa: PTH123
            file.write(b"x")
    settings = Settings(home=tmp_path / ".squish", cache_dir=tmp_path / ".squish" / "models", offline=True)
    for command in (("list",), ("list", "--json"), ("verify",), ("show", "m"), ("rm", "m"), ("prune",)):
        squish(*command)
        assert list(doctor.store(settings))
    assert os.listdir(store + b"/.partial") == []  # noqa: PTH208


def test_what_is_piped_in_is_read_as_well_as_it_can_be(squish: Callable[..., str], tmp_path: Path) -> None:
    assert "not in the catalog" in squish("run", "nothing:1b", stdin=BYTES)


def test_a_text_is_utf8_or_it_is_named() -> None:
    require_utf8("ä", "The path")
    assert not is_utf8(os.fsdecode(BYTES))
    with pytest.raises(InvalidInput, match=r"The path 'a\?\?' has bytes"):
        require_utf8(os.fsdecode(BYTES), "The path")
