"""Whatever is sent, the answer is a good one or an error in OpenAI's form that is not the server's fault."""

from __future__ import annotations

import asyncio
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any, cast

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from squish.api import openapi
from squish.api.openai import requests, translate
from squish.api.responses import translate as responses
from squish.api.responses.requests import InputItem, ResponsesRequest
from squish.api.responses.store import ResponseStore
from squish.config.settings import Settings
from squish.errors import InvalidInput
from squish.runtime import Runtime
from squish.sessions.answer import Generation
from squish.sessions.manager import SessionManager
from tests.api.scripted import Script, ScriptedSessions, serving
from tests.conftest import PATIENCE

pytest_plugins = ["schemathesis.pytest.plugin"]  # one second in every process: pyproject.toml leaves it out

_MANY = settings.get_profile(
    settings.get_current_profile_name()
).max_examples  # ten times as many with `make test-long`
_MOST = _MANY if _MANY < 1000 else 3 * _MANY
SPARSE = settings(
    max_examples=_MANY // 20,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much, HealthCheck.too_slow],
)


class AnsweringSessions(ScriptedSessions):
    """An engine that answers every row at once."""

    def admit(self, generation: Generation) -> None:
        Script(generation).answer(*["fine"] * generation.rows)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server in a thread of its own: schemathesis speaks without asyncio."""
    home = tmp_path_factory.mktemp("home")
    ready, over = threading.Event(), threading.Event()
    found: list[str] = []

    async def run() -> None:
        runtime = Runtime(Settings(home=home, cache_dir=home / "models"))
        runtime.sessions = cast(SessionManager, AnsweringSessions())
        async with serving(runtime) as served:
            found.append(served.url)
            ready.set()
            await asyncio.to_thread(over.wait)

    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    assert ready.wait(PATIENCE)
    yield found[0]
    over.set()
    thread.join(PATIENCE)


def check(url: str, path: str, body: bytes) -> None:
    """Send it: 200, or a 4xx in OpenAI's form."""
    request = urllib.request.Request(url + path, body, {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as response:
            assert response.status == 200
    except urllib.error.HTTPError as error:
        with error:
            assert 400 <= error.code < 500
            assert set(json.load(error)["error"]) == {"message", "type", "param", "code"}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
FIELDS = sorted({*requests.ChatRequest.__struct_fields__, *requests.CompletionRequest.__struct_fields__})
BODIES = st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=5)
TYPES = (
    "message",
    "function_call",
    "function_call_output",
    "reasoning",
    "custom_tool_call",
    "web_search_call",
    "x",
    None,
)
WHOLE: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}


@settings(SPARSE, max_examples=_MOST)
@given(fields=BODIES, complete=st.booleans())
def test_a_body_is_understood_or_refused_by_a_sentence(fields: dict[str, Any], complete: bool) -> None:
    body = json.dumps((WHOLE | {"prompt": "x"} | fields) if complete else fields).encode()
    for read in (translate.read_chat, translate.read_completion):
        try:
            read(body)
        except InvalidInput as error:
            assert error.message
            assert "Traceback" not in error.message


RESPONSE_FIELDS = sorted(ResponsesRequest.__struct_fields__)
ITEMS = st.fixed_dictionaries(
    {}, optional={"type": st.sampled_from(TYPES), **dict.fromkeys(sorted(InputItem.__struct_fields__[1:]), JSON)}
)


@settings(SPARSE, max_examples=_MANY // 2)
@given(
    fields=st.dictionaries(st.sampled_from(RESPONSE_FIELDS), JSON, max_size=4),
    items=st.lists(ITEMS, max_size=3),
)
def test_a_body_of_the_responses_api_is_understood_or_refused_by_a_sentence(
    fields: dict[str, Any], items: list[dict[str, Any]]
) -> None:
    for body in ({"model": "m", "input": "x"} | fields, {"model": "m", "input": items}):
        try:
            responses.read(json.dumps(body).encode(), ResponseStore())
        except InvalidInput as error:
            assert error.message
            assert "Traceback" not in error.message


@settings(SPARSE, max_examples=_MOST)
@given(body=st.binary(max_size=200))
def test_bytes_are_refused(body: bytes) -> None:
    with pytest.raises(InvalidInput):
        translate.read_chat(body)


@settings(SPARSE, max_examples=_MANY // 2)
@given(fields=BODIES, path=st.sampled_from(["/v1/chat/completions", "/v1/completions"]))
def test_every_answer_to_a_strange_body_is_well_formed(url: str, fields: dict[str, Any], path: str) -> None:
    check(url, path, json.dumps(WHOLE | fields).encode())


schema = schemathesis.openapi.from_dict(openapi.openapi())
# Every edge of every field, thousands of requests that each process makes up when it collects tests: `make test-long`.
schema.config.phases.coverage.enabled = settings.get_current_profile_name() == "long"


@schema.exclude(path="/metrics").parametrize()
@SPARSE
def test_the_server_is_what_its_document_says(case: schemathesis.Case[Any], url: str) -> None:
    checks = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
    if isinstance(case.body, dict) and case.body.get("stream") is True:
        del checks[3]  # of a stream the document says only that it is text
    case.call_and_validate(base_url=url, checks=checks)
