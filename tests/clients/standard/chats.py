# mypy: ignore-errors
"""LangChain's standard suite for chat models, by each of its clients, against the real model; and what that cannot do.

What a model has to choose to do, such as to call a tool, is expected to fail: MODEL was not trained to.
"""

import os
from types import FunctionType

import pytest
from langchain_anthropic import ChatAnthropic
from langchain_ollama import ChatOllama
from langchain_openai import ChatOpenAI
from langchain_tests.integration_tests import ChatModelIntegrationTests

ADDRESS, MODEL = os.environ["SQUISH_URL"], "smollm2:135m"

BY_ITSELF = "a model of 135M parameters calls no tool by itself"
CALLS = ("test_tool_calling", "test_tool_calling_async")
OBJECTS = (
    "test_structured_output", "test_structured_output_async", "test_structured_output_pydantic_2_v1",
    "test_structured_output_optional_param",
)  # fmt: skip


def beyond_it(*names, reason):
    """A decorator of a suite: what MODEL may not get right, whatever the server does."""

    def mark(suite):
        for name in names:
            own = getattr(ChatModelIntegrationTests, name)
            again = FunctionType(own.__code__, own.__globals__, name, own.__defaults__, own.__closure__)
            again.__dict__.update(own.__dict__, pytestmark=[*getattr(own, "pytestmark", ())])
            setattr(suite, name, pytest.mark.xfail(reason=reason)(again))
        return suite

    return mark


@beyond_it("test_agent_loop", reason=BY_ITSELF)
@beyond_it(*CALLS, reason="it may call a function with another number than it was told")
@beyond_it(*OBJECTS, reason="it may go on inside a string until the limit")
@beyond_it("test_json_mode", reason="without a schema it names the fields as it likes")
class Suite(ChatModelIntegrationTests):
    """What holds for each dialect. Images, sounds and PDFs are skipped by the suite itself: none is understood."""

    @property
    def model_override_value(self):
        return f"{MODEL}:latest"


class TestAnthropic(Suite):
    @property
    def chat_model_class(self):
        return ChatAnthropic

    @property
    def chat_model_params(self):
        return {"base_url": ADDRESS, "api_key": "any", "model_name": MODEL, "max_tokens": 256}

    @property
    def supports_anthropic_inputs(self):
        return False


class TestOpenAI(Suite):
    @property
    def chat_model_class(self):
        return ChatOpenAI

    @property
    def chat_model_params(self):
        return {"base_url": f"{ADDRESS}/v1", "api_key": "any", "model": MODEL, "max_tokens": 256, "stream_usage": True}

    @property
    def supports_json_mode(self):
        return True


class TestResponses(TestOpenAI):
    @property
    def chat_model_params(self):
        return {
            "base_url": f"{ADDRESS}/v1",
            "api_key": "any",
            "model": MODEL,
            "use_responses_api": True,
            "max_tokens": 256,
        }


@beyond_it(
    *CALLS,
    "test_bind_runnables_as_tools",
    "test_tool_calling_with_no_arguments",
    "test_unicode_tool_call_integration",
    reason=BY_ITSELF,
)
class TestOllama(Suite):
    @property
    def chat_model_class(self):
        return ChatOllama

    @property
    def chat_model_params(self):
        return {"base_url": ADDRESS, "model": MODEL, "num_predict": 256}

    @property
    def supports_json_mode(self):
        return True

    @property
    def has_tool_choice(self):
        return False  # Ollama's API has no such field
