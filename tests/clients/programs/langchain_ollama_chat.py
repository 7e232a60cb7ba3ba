# mypy: ignore-errors
"""LangChain on Ollama's API: an answer whole, streamed and asynchronous, and a function that it is given."""

import asyncio
import os

from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_ollama import ChatOllama, OllamaLLM

ADDRESS = os.environ["SQUISH_URL"]
MODEL = "smollm2:135m"


@tool
def weather(city: str) -> str:
    """The weather in a city."""
    return f"sunny in {city}"


model = ChatOllama(
    base_url=ADDRESS, model=MODEL, validate_model_on_init=True, temperature=0, num_ctx=4096, num_predict=64, top_k=40,
    top_p=0.9, repeat_penalty=1.1, repeat_last_n=64, mirostat=0, seed=1, stop=["END"], keep_alive="5m",
)  # fmt: skip
question = HumanMessage("Say hello.")
whole = model.invoke([question])
assert whole.usage_metadata is not None
assert whole.usage_metadata["output_tokens"] > 0
assert "".join(chunk.text for chunk in model.stream([question])) == whole.text
assert asyncio.run(model.ainvoke([question])).text == whole.text
assert OllamaLLM(base_url=ADDRESS, model=MODEL).invoke("Say hello.") == whole.text

with_tools = model.bind_tools([weather])
called = with_tools.invoke([question])
[call] = called.tool_calls
assert call["args"] == {"city": "Berlin"}
print(with_tools.invoke([question, called, ToolMessage(weather.invoke(call["args"]), tool_call_id=call["id"])]).text)
