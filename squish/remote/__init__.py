"""Models of another program, asked over HTTP: another Squish, Ollama, llama-server, or any server of OpenAI's API. It
offers what `sessions.backend` names, so that the screens do not know the difference."""
