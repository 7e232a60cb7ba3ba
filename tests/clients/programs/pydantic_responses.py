# mypy: ignore-errors
"""Agents of pydantic-ai over the Responses API: a tool, a typed output by a tool, and a stream."""

import asyncio
import os

from pydantic import BaseModel
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider

model = OpenAIResponsesModel(
    "smollm2:135m", provider=OpenAIProvider(base_url=os.environ["SQUISH_URL"] + "/v1", api_key="any")
)


class City(BaseModel):
    name: str
    inhabitants: int


async def main() -> None:
    seen = []
    agent = Agent(model, instructions="Be brief.")

    @agent.tool_plain
    def weather(city: str) -> str:
        seen.append(city)
        return "rain"

    first = await agent.run("Weather in Berlin?")
    assert seen == ["Berlin"], seen
    await agent.run("And now?", message_history=first.all_messages())
    typed = await Agent(model, output_type=City).run("Which city?")
    assert typed.output == City(name="Berlin", inhabitants=7), typed.output
    async with agent.run_stream("Again?") as stream:
        print("".join([piece async for piece in stream.stream_text(delta=True)]))


asyncio.run(main())
