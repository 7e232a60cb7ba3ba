# mypy: ignore-errors
"""What oterm does behind its screen: lists and shows models with Ollama's API, and has an agent answer."""

import asyncio

from oterm.agent import get_agent
from oterm.providers import ollama
from oterm.providers.capabilities import get_capabilities

[model] = [each.model for each in ollama.list_models().models]
shown = ollama.show_model(model)
assert ollama.parse_modelfile_parameters(shown.parameters) == {"temperature": 0.7, "top_p": 0.9}
assert "tools" in shown.capabilities
assert get_capabilities("ollama", model).supports_tools
print(asyncio.run(get_agent(model=model, provider="ollama").run("Say hello.")).output)
