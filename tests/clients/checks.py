"""Which programs are run, what they are installed from, and what has to come of it."""

from __future__ import annotations

from dataclasses import dataclass

from tests.clients.engine import RAN, SAID
from tests.conftest import MODEL


@dataclass(frozen=True, slots=True)
class Check:
    """pip, npm: what it is installed from. command: {url} is the server's address, {programs} our own programs.

    {standard} our classes for the standard suites of others. expects: what it prints at its end. tool: it has to run a
    command that the engine asks for, and send back what came of it. real: it is answered by the real model, and there
    is an embedding model too.
    """

    name: str
    command: tuple[str, ...]
    pip: tuple[str, ...] = ()
    npm: tuple[str, ...] = ()
    expects: str = SAID
    tool: bool = False
    real: bool = False


def launched(name: str, *arguments: str) -> tuple[str, ...]:
    return ("squish", "launch", name, "--url", "{url}", "--", *arguments)


def standard(suite: str, file: str = "chats.py") -> Check:
    """A standard suite of LangChain's; pytest sees nothing of ours but the one file."""
    alone = ("-c", "/dev/null", "--rootdir", ".", "--noconftest", "-p", "no:cacheprovider", "-o", "asyncio_mode=auto")
    loops = [f"--override-ini=asyncio_default_{each}_loop_scope=session" for each in ("test", "fixture")]
    return Check(
        f"langchain-tests {suite}",
        ("python", "-m", "pytest", "-q", "-rs", *alone, *loops, "-k", suite, f"{{standard}}/{file}"),
        pip=("langchain-tests", "langchain-anthropic", "langchain-ollama", "langchain-openai"),
        expects=" passed",
        real=True,
    )


CHECKS = (
    standard("TestOpenAI"),
    standard("TestResponses"),
    standard("TestAnthropic"),
    standard("TestOllama"),
    standard("Embeddings", "vectors.py"),
    Check(
        "llm-anthropic",
        (
            "sh",
            "-ec",
            "export ANTHROPIC_BASE_URL={url} ANTHROPIC_API_KEY=any; llm anthropic refresh; "
            "llm anthropic count -m anthropic/smollm2:135m 'Say hello.'; "
            "llm -m anthropic/smollm2:135m -o temperature 0 'Say hello.'",
        ),
        pip=("llm", "llm-anthropic"),
    ),
    Check("openai-agents", ("python", "{programs}/openai_agents.py"), pip=("openai-agents",)),
    Check("pydantic-ai", ("python", "{programs}/pydantic_responses.py"), pip=("pydantic-ai-slim[openai]",)),
    Check("langchain-ollama", ("python", "{programs}/langchain_ollama_chat.py"), pip=("langchain-ollama",)),
    Check(
        "llm-ollama",
        ("sh", "-c", "OLLAMA_HOST={url} llm -m ollama/smollm2:135m -o num_ctx 2048 -o temperature 0 'Say hello.'"),
        pip=("llm", "llm-ollama"),
    ),
    Check("oterm", ("sh", "-c", "OLLAMA_URL={url} python {programs}/oterm_models.py"), pip=("oterm",)),
    Check("ollama (npm)", ("node", "{programs}/ollama_chat.mjs"), npm=("ollama",)),
    Check("openai (npm)", ("node", "{programs}/openai_responses.mjs"), npm=("openai",)),
    Check("anthropic (npm)", ("node", "{programs}/anthropic_messages.mjs"), npm=("@anthropic-ai/sdk",)),
    Check("langchain-anthropic", ("python", "{programs}/langchain_messages.py"), pip=("langchain-anthropic",)),
    Check("pydantic-ai-anthropic", ("python", "{programs}/pydantic_messages.py"), pip=("pydantic-ai-slim[anthropic]",)),
    Check(
        "codex",
        launched("codex", "exec", "--skip-git-repo-check", "--sandbox", "danger-full-access", "Say hello."),
        npm=("@openai/codex",),
        tool=True,
    ),
    Check(
        "codex --oss",
        (
            "env",
            "CODEX_OSS_BASE_URL={url}/v1",
            "codex",
            "exec",
            "--oss",
            "--local-provider",
            "lmstudio",
            "--model",
            MODEL,
            "--skip-git-repo-check",
            "--sandbox",
            "danger-full-access",
            "Say hello.",
        ),
        npm=("@openai/codex",),
        tool=True,
    ),
    Check(
        "claude",
        launched("claude", "-p", "--allowedTools", "Bash", "--", "Say hello."),
        npm=("@anthropic-ai/claude-code",),
        tool=True,
    ),
    Check("opencode", launched("opencode", "run", "Say hello."), npm=("opencode-ai",), tool=True),
    Check(
        "qwen",
        launched("qwen", "--approval-mode", "yolo", "-p", "Say hello."),
        npm=("@qwen-code/qwen-code",),
        tool=True,
    ),
    Check("cn", launched("cn", "--auto", "-p", "Say hello."), npm=("@continuedev/cli",), tool=True),
    Check(
        "aider",
        launched("aider", "--no-git", "--no-stream", "--yes-always", "--no-check-update", "--message", "Say hello."),
        pip=("aider-chat",),
    ),
)

__all__ = ["CHECKS", "RAN", "SAID", "Check"]
