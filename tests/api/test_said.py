"""A thought and a call, through the real worker, as each dialect's own client sees them: whole, streamed, and with the
call's result sent back."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from squish.config.settings import Settings
from squish.models.store import Store
from squish.runtime import Runtime
from tests.api.scripted import serving
from tests.conftest import clean_environment
from tests.later import openai
from tests.worker import said
from tests.worker.said import CITY, ENDING, THOUGHT

pytestmark = pytest.mark.asyncio(loop_scope="module")  # one server, and so one loaded model, for all of them

NAME, QUESTION = "said:1b", "What is the weather in Berlin?"
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
FUNCTION: dict[str, Any] = {"name": "weather", "description": "The weather.", "parameters": PARAMETERS}
ASKED: list[Any] = [{"role": "user", "content": QUESTION}]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def url(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    home: Path = tmp_path_factory.mktemp("said")
    settings = Settings.from_environment(clean_environment(home) | {"SQUISH_OFFLINE": "1"})
    said.install(Store(settings.cache_dir), NAME)
    async with Runtime(settings) as runtime, serving(runtime) as address:
        yield address.url


@pytest.mark.parametrize("streamed", [False, True])
async def test_openai_chat(url: str, streamed: bool) -> None:
    given: Any = {"model": NAME, "tools": [{"type": "function", "function": FUNCTION}], "temperature": 0}
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0) as client:
        if streamed:
            thought = ""
            async with client.chat.completions.stream(messages=ASKED, **given) as stream:
                async for event in stream:
                    if event.type == "chunk" and event.chunk.choices:
                        thought += getattr(event.chunk.choices[0].delta, "reasoning_content", None) or ""
                found = await stream.get_final_completion()
        else:
            found = await client.chat.completions.create(messages=ASKED, **given)
            thought = getattr(found.choices[0].message, "reasoning_content", "")
        [choice] = found.choices
        assert choice.message.tool_calls is not None
        [call] = choice.message.tool_calls
        assert (choice.finish_reason, choice.message.content or "") == ("tool_calls", "")
        assert (thought, call.type) == (THOUGHT, "function")
        assert call.type == "function"
        assert (call.function.name, json.loads(call.function.arguments)) == ("weather", {"city": CITY})
        answered: Any = {"role": "assistant", "tool_calls": [call.model_dump(include={"id", "type", "function"})]}
        result: Any = {"role": "tool", "tool_call_id": call.id, "content": "rain"}
        last = await client.chat.completions.create(messages=[*ASKED, answered, result], **given)
        assert (last.choices[0].message.content, last.choices[0].finish_reason) == (ENDING, "stop")


@pytest.mark.parametrize("streamed", [False, True])
async def test_openai_responses(url: str, streamed: bool) -> None:
    given: Any = {"model": NAME, "tools": [{"type": "function", **FUNCTION}], "temperature": 0}
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0) as client:
        if streamed:
            pieces: dict[str, str] = {}
            async with client.responses.stream(input=QUESTION, **given) as stream:
                async for event in stream:
                    if event.type.endswith(".delta"):
                        pieces[event.type] = pieces.get(event.type, "") + str(getattr(event, "delta", ""))
                found: Any = await stream.get_final_response()
            assert pieces["response.reasoning_text.delta"] == THOUGHT
            assert json.loads(pieces["response.function_call_arguments.delta"]) == {"city": CITY}
        else:
            found = await client.responses.create(input=QUESTION, **given)
        thought, call = found.output
        assert (thought.type, thought.content[0].text) == ("reasoning", THOUGHT)
        assert (call.type, call.name, json.loads(call.arguments)) == ("function_call", "weather", {"city": CITY})
        assert call.id != call.call_id
        result: Any = [{"type": "function_call_output", "call_id": call.call_id, "output": "rain"}]
        last = await client.responses.create(input=result, previous_response_id=found.id, **given)
        assert last.output_text == ENDING
        whole: Any = [*ASKED, *(each.model_dump(exclude_none=True) for each in found.output), *result]
        again = await client.responses.create(input=whole, **given)
        assert (again.output_text, again.usage and again.usage.input_tokens) == (
            ENDING,
            last.usage and last.usage.input_tokens,
        )


@pytest.mark.parametrize("streamed", [False, True])
async def test_anthropic(url: str, streamed: bool) -> None:
    tool = {"name": "weather", "description": "The weather.", "input_schema": PARAMETERS}
    given: Any = {"model": NAME, "max_tokens": 64, "tools": [tool], "thinking": {"type": "adaptive"}}
    import anthropic  # seconds, in each process that collects tests

    async with anthropic.AsyncAnthropic(base_url=url, api_key="any", max_retries=0) as client:
        if streamed:
            async with client.messages.stream(messages=ASKED, **given) as stream:
                found: Any = await stream.get_final_message()
        else:
            found = await client.messages.create(messages=ASKED, **given)
        thought, call = found.content
        assert (found.stop_reason, thought.type, thought.thinking) == ("tool_use", "thinking", THOUGHT)
        assert (call.type, call.name, call.input) == ("tool_use", "weather", {"city": CITY})
        result = {"type": "tool_result", "tool_use_id": call.id, "content": "rain"}
        turns: Any = [*ASKED, {"role": "assistant", "content": found.content}, {"role": "user", "content": [result]}]
        last: Any = await client.messages.create(messages=turns, **given)
        assert ([block.text for block in last.content], last.stop_reason) == ([ENDING], "end_turn")


@pytest.mark.parametrize("streamed", [False, True])
async def test_ollama(url: str, streamed: bool) -> None:
    given: Any = {"model": NAME, "tools": [{"type": "function", "function": FUNCTION}], "think": True}
    import ollama

    async with ollama.AsyncClient(url) as client:
        assert (await client.show(NAME)).capabilities == ["completion", "tools", "thinking"]
        answer = await client.chat(messages=ASKED, stream=streamed, **given)
        parts: list[Any] = [part async for part in answer] if streamed else [answer]
        assert "".join(part.message.thinking or "" for part in parts) == THOUGHT
        assert "".join(part.message.content or "" for part in parts) == ""
        [call] = [call for part in parts for call in part.message.tool_calls or ()]
        assert (call.function.name, call.function.arguments) == ("weather", {"city": CITY})
        answered = {"role": "assistant", "thinking": THOUGHT, "tool_calls": [call.model_dump()]}
        result = {"role": "tool", "tool_name": "weather", "content": "rain"}
        last = await client.chat(messages=[*ASKED, answered, result], **given)
        assert (last.message.content, last.done_reason) == (ENDING, "stop")
