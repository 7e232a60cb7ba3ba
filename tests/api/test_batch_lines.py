"""The lines of a batch, without a server: which inputs are wrong, and what of an output need not be done again."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from squish.api.batches import lines
from squish.api.batches.lines import Item, Line, LineError, LineResponse, SettledLine, Tokens
from squish.api.batches.run import Output
from squish.errors import InvalidInput, SquishError
from tests.api.test_batches import CHAT, request


def test_of_a_file_the_first_mistakes_are_named_and_how_long_an_id_may_be() -> None:
    def found(*texts: str, most: int = 20) -> list[tuple[str, int, str | None]]:
        return [
            (each.code, each.line, each.param) for each in lines.problems([text.encode() for text in texts], most=most)
        ]

    assert found(request("a"), "", request("b" * lines.LONGEST_ID)) == []
    assert found(request("b" * (lines.LONGEST_ID + 1)), request("")) == [
        ("invalid_value", 1, "custom_id"), ("invalid_value", 2, "custom_id"),
    ]  # fmt: skip
    assert found("{", "{", "{", most=2) == [("invalid_value", 1, None), ("invalid_value", 2, None)]
    assert found("", " \n") == found() == [("empty_file", 1, None)]
    [twice] = lines.problems([request("a").encode()] * 2)
    assert "the same as in line 1" in twice.message
    assert found(request("a", url="/v1/none")) == [("invalid_value", 1, "url")]
    assert found(request("a", body=[])) == [("invalid_value", 1, "body")]  # type: ignore[arg-type]


def test_what_a_batch_has_cost_is_the_sum() -> None:
    sum_of = Tokens(1, 2, 3)
    sum_of.add(Tokens(10, 20, 30))
    sum_of.add(Tokens(100, 200, 300))
    assert sum_of == Tokens(111, 222, 333)


@pytest.mark.parametrize(
    "text",
    [
        '{"i',
        '{"id":"2","custom_id":"b","resp',
        '{"id":"2","cu\0\0',
        "\0",
        '{"id": "1", "custom_id": "x", "response": null, "error": null}\n',
    ],
)
def test_an_output_forgets_what_is_to_be_done_again(tmp_path: Path, text: str) -> None:
    usage = b'{"prompt_tokens": 9, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 5}}'
    whole = Line("1", "a", lines.LineResponse(200, "r", msgspec.Raw(b'{"usage": %s}' % usage)))
    path = tmp_path / "out"
    with Output(path) as output:
        output.write(whole)
    written = path.read_text()
    path.write_text(text if text.endswith("\n") else "")
    path.write_text(path.read_text() + written + text)
    with Output(path) as output:
        assert [(line.custom_id, line.tokens) for line in output.settled] == [("a", Tokens(9, 5, 4))]
        assert path.read_text() == written
        output.write(whole)
        with pytest.raises(SquishError, match="another batch"):
            Output(path)
    assert path.read_text().count("\n") == 2


@pytest.mark.parametrize("text", ["Dear all\n", "Dear all", request("a"), '{"id":"1","name":"x"}', '{"id":"x\n'])
def test_an_output_is_never_written_over_something_else(tmp_path: Path, text: str) -> None:
    """Not over a line without an end either, such as the one request of the input itself."""
    path = tmp_path / "letter"
    path.write_text(text)
    with pytest.raises(InvalidInput, match="letter, line 1 is not an answer"):
        Output(path)
    assert path.read_text() == text


def _item(id: str = "a", url: str = CHAT, body: bytes = b'{"model":"m","n":1}') -> Item:
    return Item(id, url, msgspec.Raw(body))


def _settled(id: str) -> SettledLine:
    return SettledLine(id, "a", True, 0, 1, Tokens())


def test_an_answer_is_known_by_what_was_asked() -> None:
    item = _item()
    assert item.mark == "1f40bb0106bc1e60", "what an older version has answered is not asked again"
    assert item.mark == _item(body=b' {"n": 1, "model": "m"} ').mark
    others = [_item(body=b'{"model":"m","n":2}'), _item(url="/v1/completions"), _item(url=f"{CHAT}?")]
    for other in others:
        assert other.mark != item.mark
        assert len(other.mark) == 16
    first, second = lines.line_id(item), lines.line_id(item)
    assert first.startswith(f"batch_req_{item.mark}")
    assert len(first) == len(second) == len("batch_req_") + 16 + 8
    assert first != second
    assert lines.answers(_settled(first), item.mark)
    assert not any(lines.answers(_settled(first), other.mark) for other in others)
    assert not lines.answers(_settled(f"x{first}"), item.mark)


def test_the_requests_are_read_without_the_empty_lines_and_a_method_need_not_be_said() -> None:
    texts = [b"\n", request("a").encode(), b" \r\n", json.dumps({"custom_id": "b", "url": CHAT, "body": {}}).encode()]
    assert [(each.custom_id, each.url, each.method) for each in lines.items(texts)] == [
        ("a", CHAT, "POST"), ("b", CHAT, "POST"),
    ]  # fmt: skip


@pytest.mark.parametrize("url", lines.ENDPOINTS)
def test_all_requests_of_a_batch_go_to_its_endpoint(url: str) -> None:
    text = request("a", url=url).encode()
    assert lines.problems([text]) == lines.problems([text], url) == []
    for other in set(lines.ENDPOINTS) - {url}:
        [problem] = lines.problems([b"\n", text], other)
        assert (problem.param, problem.line) == ("url", 2)
        assert problem.message == f"url must be {other}, the endpoint of the batch."


def test_each_mistake_is_named_by_its_field() -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"custom_id": ""}, "custom_id"),
        ({"method": "GET"}, "method"),
        ({"url": "/v1/none"}, "url"),
        ({"body": "{}"}, "body"),
        ({"body": None}, "body"),
    ]
    texts = [request(f"r{number}", **fields).encode() for number, (fields, _) in enumerate(wrong)]
    assert [each.param for each in lines.problems(texts)] == [param for _, param in wrong]
    spaced = request("a").replace('"body": {', '"body":  \t{').encode()
    assert lines.problems([spaced]) == []
    assert len(lines.problems([b"{"] * 30)) == 20


def _line(id: str, status: int | None, body: bytes = b"{}") -> bytes:
    response = None if status is None else LineResponse(status, "r", msgspec.Raw(body))
    return msgspec.json.encode(Line(id, id, response, LineError("c", "m") if response is None else None))


@pytest.mark.parametrize(
    ("status", "is_answer", "is_settled"),
    [(200, True, True), (400, False, True), (499, False, True), (500, False, False), (None, False, False)],
)
def test_what_a_server_could_not_do_is_done_again_and_a_refusal_is_not(
    status: int | None, is_answer: bool, is_settled: bool
) -> None:
    text = _line("a", status)
    line = lines.decode_line(text)
    assert (line.is_answer, line.is_settled) == (is_answer, is_settled)
    kept, clean = lines.settled(io.BytesIO(text + b"\n"))
    assert (len(kept), clean) == (int(is_settled), is_settled)
    assert all(each.is_answer == is_answer for each in kept)


def test_of_an_output_places_and_costs_are_remembered() -> None:
    usage = b'{"usage":{"prompt_tokens":9,"completion_tokens":4,"prompt_tokens_details":{"cached_tokens":5}}}'
    costs = {
        usage: Tokens(9, 5, 4),
        b'{"usage":{"prompt_tokens":3}}': Tokens(3),
        b'{"usage":null}': Tokens(),
        b'{"usage":{"prompt_tokens":"many"}}': Tokens(),
        b"{}": Tokens(),
    }
    texts = [_line(f"{number}", 200, body) + b"\n" for number, body in enumerate(costs)]
    kept, clean = lines.settled(io.BytesIO(b"".join(texts)))
    assert clean
    assert [each.tokens for each in kept] == list(costs.values())
    whole = b"".join(texts)
    assert [whole[each.start : each.end] for each in kept] == texts


def test_a_whole_line_whose_end_is_missing_is_done_again_but_not_taken_for_something_else() -> None:
    """A kill came before the end of the line was written: what stands there may be cut off all the same."""
    first = _line("a", 200) + b"\n"
    kept, clean = lines.settled(io.BytesIO(first + _line("b", 200)))
    assert [each.id for each in kept] == ["a"]
    assert not clean
    kept, clean = lines.settled(io.BytesIO(first + b'{"id":"b","custom\xff'))
    assert [each.id for each in kept] == ["a"]
    assert not clean
    with pytest.raises(InvalidInput, match=r"line 2 is not an answer of a batch"):
        lines.settled(io.BytesIO(first + b'{"id":"b\xff\n'))
    with pytest.raises(InvalidInput, match=r"line 1 is not an answer of a batch"):
        lines.settled(io.BytesIO(b'{"id":"b"}' + b"\0\0"))
