"""Bodies that are deep, long, wrongly encoded, huge in number, strange in script, or made by chance."""

from __future__ import annotations

import json
import random

import pytest

from tests.api.raw_http import Server, ask
from tests.hostile.spoken import ABOUT_MODELS, SPOKEN, Spoken, for_each

pytestmark = pytest.mark.asyncio(loop_scope="module")

DEEP = 100_000
LATER = b"\xed\xa0\x80"  # half of a surrogate pair, as if it were UTF-8

NOT_TAKEN: dict[str, bytes] = {
    "nothing": b"",
    "spaces": b" \r\n\t" * 1000,
    "a list": b"[]",
    "a string": b'"model"',
    "null": b"null",
    "a number": b"1e999999",
    "not JSON": b"model=m&prompt=x",
    "a form": b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\nm\r\n--x--\r\n',
    "XML": b"<?xml version='1.0'?><!DOCTYPE x [<!ENTITY y SYSTEM 'file:///etc/passwd'>]><x>&y;</x>",
    "cut": b'{"model": "m", "pro',
    "two objects": b"{}{}",
    "a comment": b"{} // x",
    "a byte order mark": b"\xef\xbb\xbf{}",
    "UTF-16": '{"model": "m"}'.encode("utf-16"),
    "UTF-32": '{"model": "m"}'.encode("utf-32"),
    "Latin-1": b'{"model": "caf\xe9"}',
    "half a surrogate": b'{"model": "' + LATER + b'"}',
    "half a surrogate, escaped": b'{"model": "\\ud800"}',
    "an overlong slash": b'{"model": "\xc0\xaf"}',
    "a null byte": b'{"model": "m"}\x00',
    "gzip": bytes.fromhex("1f8b08000000000000ff"),
    "deep lists": b"[" * DEEP,
    "deep lists that end": b"[" * DEEP + b"]" * DEEP,
    "deep objects": b'{"a":' * DEEP + b"1" + b"}" * DEEP,
    "a long number": b'{"model": ' + b"9" * 100_000 + b"}",
    "a long fraction": b'{"temperature": 0.' + b"9" * 100_000 + b"}",
    "NaN": b'{"temperature": NaN}',
    "Infinity": b'{"temperature": -Infinity}',
}


def refused(spoken: Spoken, status: int, body: bytes) -> None:
    """It is the client's fault, in the form of its dialect, and says something."""
    assert 400 <= status < 500, body[:300]
    spoken.error(status, json.loads(body))


@pytest.mark.parametrize("body", NOT_TAKEN.values(), ids=NOT_TAKEN.keys())
@for_each(*SPOKEN)
async def test_what_is_no_request(server: Server, spoken: Spoken, body: bytes) -> None:
    answer = await ask(server, "POST", spoken.path, body)
    refused(spoken, answer.status, answer.body)
    assert server.sessions.requests == []


@for_each(*ABOUT_MODELS)
async def test_what_is_no_request_about_models(server: Server, spoken: Spoken) -> None:
    deep = [opening * DEEP + b"1" + closing * DEEP for opening, closing in ((b"[", b"]"), (b'{"a":', b"}"))]
    nested = [b'{"%b": %b}' % (field.encode(), value) for field in ("unknown", *spoken.good) for value in deep]
    for body in (*NOT_TAKEN.values(), *nested):
        answer = await ask(server, spoken.method, spoken.path, body)
        refused(spoken, answer.status, answer.body)


@pytest.mark.parametrize("place", ["unknown", "text", "model", "metadata", "tools", "response_format", "stop"])
@for_each(*SPOKEN)
async def test_a_value_that_is_nested_without_an_end(server: Server, spoken: Spoken, place: str) -> None:
    field = spoken.text if place == "text" else place
    for opening, closing in ((b"[", b"]"), (b'{"a":', b"}")):
        rest = json.dumps({name: value for name, value in spoken.good.items() if name != field}).encode()[1:]
        deep = opening * DEEP + b"1" + closing * DEEP
        answer = await ask(server, "POST", spoken.path, b'{"%b": %b, %b' % (field.encode(), deep, rest))
        refused(spoken, answer.status, answer.body)


NUMBERS = (
    "1e308", "-1e308", "1e309", "1e-400", "-0", "-0.0", "1.0", "9" * 20, "-" + "9" * 20, "9" * 400,
    str(2**31), str(2**53 + 1), str(2**63), str(2**64), "true", "null", '"1"', '"\u00b2"', "[]", "{}", "[1]",
)  # fmt: skip
FIELDS = (
    "max_tokens", "temperature", "top_p", "top_k", "min_p", "seed", "n", "stop", "logit_bias", "frequency_penalty",
    "presence_penalty", "repetition_penalty", "keep_alive", "logprobs", "top_logprobs", "stream", "stream_options",
    "user", "metadata", "response_format",
)  # fmt: skip


@pytest.mark.parametrize("field", FIELDS)
@for_each(*SPOKEN)
async def test_numbers_at_and_beyond_every_edge(server: Server, spoken: Spoken, field: str) -> None:
    for number in NUMBERS:
        rest = json.dumps(spoken.good).encode()[1:]
        answer = await ask(server, "POST", spoken.path, b'{"%b": %b, %b' % (field.encode(), number.encode(), rest))
        if answer.status != 200:
            refused(spoken, answer.status, answer.body)


TEXTS = (
    "\x00", "\x1b]52;c;eA==\x07", "\u202ehi\u202c", "\ufeff", "\u200b" * 1000, "👩‍👩‍👧‍👦" * 500,
    "e" + "\u0301" * 5000, "\U0010ffff", "\ufffe",
    "𒐫" * 1000, "﷽" * 1000, "ﬀ", "İ", "ß", "ǅ", "<|im_start|>system\n", "{{ 7 * 7 }}", "{% for x in y %}",
    "%s%n", "../../etc/passwd", "$(id)",
    "'; DROP TABLE chats; --", "\r\nHTTP/1.1 200 OK\r\n", "data: [DONE]\n\n",
)  # fmt: skip


@for_each(*SPOKEN)
async def test_text_of_every_script_is_text(server: Server, spoken: Spoken) -> None:
    for text in TEXTS:
        for escaped in (True, False):
            body = json.dumps(spoken.saying(text), ensure_ascii=escaped).encode()
            assert (await ask(server, "POST", spoken.path, body)).status == 200, ascii(text[:20])
        elsewhere = await ask(server, "POST", spoken.path, spoken.good | {"model": text})
        assert elsewhere.status == 404, ascii(text[:20])
        refused(spoken, elsewhere.status, elsewhere.body)
        wrong = await ask(server, "POST", spoken.path, spoken.good | {"stream": text})
        refused(spoken, wrong.status, wrong.body)


@for_each(*ABOUT_MODELS)
async def test_a_name_of_every_script_is_a_model_that_is_not_there(server: Server, spoken: Spoken) -> None:
    fields = spoken.good.keys() & {"model", "source", "destination"}
    for text in TEXTS:
        for field in fields:
            answer = await ask(server, spoken.method, spoken.path, spoken.good | {field: text})
            assert answer.status in (400, 404), ascii(text[:20])
            refused(spoken, answer.status, answer.body)


PUT_IN = (b"null", b"[]", b"{}", b'"', b"1e999", b"\\u0000", b"\xff", b"-", b"true", b"[[[")


def mutated(good: bytes, chance: random.Random) -> bytes:
    """A good body with a few bytes changed, taken out, doubled or put in."""
    body = bytearray(good)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(body))
        match chance.randrange(5):
            case 0:
                body[at] = chance.randrange(256)
            case 1:
                del body[at : at + chance.randint(1, 8)]
            case 2:
                body[at:at] = body[: chance.randint(1, 30)]
            case 3:
                body[at:at] = chance.choice(PUT_IN)
            case _:
                other = chance.randrange(len(body))
                body[at], body[other] = body[other], body[at]
        body = body or bytearray(b" ")
    return bytes(body)


@pytest.mark.parametrize("many", [80, pytest.param(300, marks=pytest.mark.long)])
@for_each(*SPOKEN, *ABOUT_MODELS)
async def test_bodies_made_by_chance(server: Server, spoken: Spoken, many: int) -> None:
    chance = random.Random(spoken.path)
    rich = spoken.good | {"stream": True, **spoken.usual, **spoken.more}
    statuses = set()
    for _ in range(many):
        answer = await ask(server, spoken.method, spoken.path, mutated(json.dumps(rich).encode(), chance))
        statuses.add(answer.status)
        if answer.status != 200:
            refused(spoken, answer.status, answer.body)
    assert {200, 400} <= statuses
