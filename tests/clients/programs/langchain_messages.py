# mypy: ignore-errors
"""langchain-anthropic: whole, streamed, and a tool called and answered."""

import os

from langchain_anthropic import ChatAnthropic
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool


@tool
def weather(city: str) -> str:
    """The weather in a city."""
    return "rain"


model = ChatAnthropic(
    base_url=os.environ["SQUISH_URL"], api_key="any", model="smollm2:135m", max_tokens=64, max_retries=0
)
messages = [HumanMessage("Weather in Berlin?")]
called = model.bind_tools([weather]).invoke(messages)
[call] = called.tool_calls
assert call["name"] == "weather", call
result = ToolMessage(weather.invoke(call["args"]), tool_call_id=call["id"])
after = model.bind_tools([weather]).invoke([*messages, called, result])
whole = model.invoke([HumanMessage("Say hello.")])
assert whole.usage_metadata["total_tokens"] > 0
assert model.get_num_tokens_from_messages(messages) > 0
text = "".join(chunk.text for chunk in model.stream([HumanMessage("Say hello.")]))
assert text == whole.text == after.text, (text, whole, after)
print(text)
