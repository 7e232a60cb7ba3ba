# mypy: ignore-errors
"""An agent of openai-agents with a tool, whole, streamed, and with the server's memory of the conversation."""

import asyncio
import os

from agents import Agent, OpenAIResponsesModel, Runner, function_tool, set_tracing_disabled
from openai import AsyncOpenAI

seen = []


@function_tool
def weather(city: str) -> str:
    """The weather in a city."""
    seen.append(city)
    return "rain"


async def main() -> None:
    set_tracing_disabled(True)
    client = AsyncOpenAI(base_url=os.environ["SQUISH_URL"] + "/v1", api_key="any")
    agent = Agent(
        name="A", instructions="Be brief.", tools=[weather], model=OpenAIResponsesModel("smollm2:135m", client)
    )
    first = await Runner.run(agent, "Weather in Berlin?")
    assert seen == ["Berlin"], seen
    again = await Runner.run(agent, "And now?", previous_response_id=first.last_response_id)
    assert again.final_output == first.final_output
    streamed = Runner.run_streamed(agent, "Again?")
    text = ""
    async for event in streamed.stream_events():
        if event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
            text += event.data.delta
    assert text == streamed.final_output
    print(text)


asyncio.run(main())
