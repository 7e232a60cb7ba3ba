# mypy: ignore-errors
"""Agents of pydantic-ai over the Messages API: a tool, a typed output by a tool, and a stream."""

import asyncio
import os

from pydantic import BaseModel
from pydantic_ai import Agent
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.providers.anthropic import AnthropicProvider

model = AnthropicModel("smollm2:135m", provider=AnthropicProvider(base_url=os.environ["SQUISH_URL"], api_key="any"))


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
