"""`squish batch` as a script uses it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.commands.test_run import Squish
from tests.conftest import MODEL

CHAT = "/v1/chat/completions"


def request(id: str, **body: Any) -> str:
    asked = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2} | body
    return json.dumps({"custom_id": id, "method": "POST", "url": CHAT, "body": asked}) + "\n"


def answered(path: Path) -> dict[str, int]:
    found = [json.loads(line) for line in path.read_text().splitlines()]
    return {each["custom_id"]: each["response"]["status_code"] for each in found}


def test_what_was_killed_goes_on_where_it_was(squish: Squish, tmp_path: Path) -> None:
    asked, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    asked.write_text(request("a") + request("b") + request("c", temperature=9))
    done = squish("batch", str(asked), "-o", str(output))
    assert done.returncode == 1
    assert "3 of 3 answered, 1 of them with an error" in done.stderr
    assert answered(output) == {"a": 200, "b": 200, "c": 400}

    lines = output.read_text().splitlines(keepends=True)
    output.write_text("".join(lines[:2]) + lines[2][:40])
    missing = json.loads(lines[2])["custom_id"]
    done = squish("batch", str(asked), "-o", str(output))
    assert "2 of 3 are answered already." in done.stderr
    assert answered(output) == {"a": 200, "b": 200, "c": 400}
    assert output.read_text().splitlines(keepends=True)[:2] == lines[:2]
    assert json.loads(output.read_text().splitlines()[2])["custom_id"] == missing


def test_an_answer_to_another_request_of_the_same_name_is_not_taken_for_one(squish: Squish, tmp_path: Path) -> None:
    asked, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    wrong = request("a", temperature=9)  # refused, and settled by that
    asked.write_text(wrong)
    assert squish("batch", str(asked), "-o", str(output)).returncode == 1
    before = output.read_text()
    asked.write_text(json.dumps(dict(reversed(json.loads(wrong).items()))) + "\n")  # written differently, and the same
    assert "1 of 1 are answered already." in squish("batch", str(asked), "-o", str(output)).stderr
    asked.write_text(request("a", temperature=8))
    done = squish("batch", str(asked), "-o", str(output))
    assert done.returncode == 2
    assert f"{output} has an answer to another request that was called 'a'." in done.stderr
    assert output.read_text() == before


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "line 1: The file has no requests."),
        ("{}\n", "line 1: custom_id is missing."),
        (request("a") + request("a"), "line 2: custom_id is the same as in line 1"),
        (request("a", model="nobody/here"), "nobody/here"),
    ],
)
def test_a_file_with_mistakes_is_refused_before_anything_is_answered(
    squish: Squish, tmp_path: Path, content: str, told: str
) -> None:
    (tmp_path / "in.jsonl").write_text(content)
    done = squish("batch", str(tmp_path / "in.jsonl"), "-o", str(tmp_path / "out.jsonl"))
    assert done.returncode in (2, 3)
    assert told in done.stderr
    assert not (tmp_path / "out.jsonl").exists()
