"""What programs that use models need to use Squish for one run: variables, flags, and files of ours. Pure.

Each follows its program's own documents. Nothing here knows whether a program is installed, or starts one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_KEY = "SQUISH_API_KEY"
_LONGEST_ANSWER = 8192


@dataclass(frozen=True, slots=True)
class Use:
    """What is to be used. url: the server's, without a path. context: tokens that the model can hold."""

    url: str
    key: str
    model: str
    context: int

    @property
    def longest_answer(self) -> int:
        """Tokens, for programs that want to know: a quarter of the context at the most."""
        return max(1, min(_LONGEST_ANSWER, self.context // 4))


@dataclass(frozen=True, slots=True)
class Setup:
    """How a program is started. variables: None takes one away. arguments: in front of the user's.

    files: by the variable or the flag that is given their path.
    """

    variables: Mapping[str, str | None] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Program:
    """command: what is run. install: how a user gets it. needs_tools: it can do nothing with a model that has none."""

    command: str
    install: str
    about: str
    setup: Callable[[Use], Setup]
    needs_tools: bool = True


def _claude(target: Use) -> Setup:
    return Setup(
        {
            "ANTHROPIC_BASE_URL": target.url,
            "ANTHROPIC_AUTH_TOKEN": target.key,
            "ANTHROPIC_API_KEY": None,
            "ANTHROPIC_MODEL": target.model,
            "ANTHROPIC_DEFAULT_OPUS_MODEL": target.model,
            "ANTHROPIC_DEFAULT_SONNET_MODEL": target.model,
            "ANTHROPIC_DEFAULT_HAIKU_MODEL": target.model,
            "CLAUDE_CODE_SUBAGENT_MODEL": target.model,
            "CLAUDE_CODE_ATTRIBUTION_HEADER": "0",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "CLAUDE_CODE_MAX_OUTPUT_TOKENS": str(target.longest_answer),
            "CLAUDE_CODE_USE_BEDROCK": None,
            "CLAUDE_CODE_USE_VERTEX": None,
        }
    )


def _codex(target: Use) -> Setup:
    provider = {"name": "Squish", "base_url": f"{target.url}/v1", "wire_api": "responses", "env_key": _KEY}
    wanted: dict[str, Any] = {
        "model_provider": "squish",
        **{f"model_providers.squish.{name}": value for name, value in provider.items()},
        "model_context_window": target.context,
        "web_search": "disabled",
    }
    flags = [each for name, value in wanted.items() for each in ("-c", f"{name}={json.dumps(value)}")]
    return Setup({_KEY: target.key}, (*flags, "--model", target.model))


def _opencode(target: Use) -> Setup:
    limit = {"context": target.context, "output": target.longest_answer}
    model = f"squish/{target.model}"
    wanted = {
        "provider": {
            "squish": {
                "npm": "@ai-sdk/openai-compatible",
                "name": "Squish",
                "options": {"baseURL": f"{target.url}/v1", "apiKey": f"{{env:{_KEY}}}"},
                "models": {target.model: {"name": target.model, "limit": limit}},
            }
        },
        "model": model,
        "small_model": model,
    }
    return Setup({_KEY: target.key, "OPENCODE_CONFIG_CONTENT": json.dumps(wanted)})


def _qwen(target: Use) -> Setup:
    return Setup(
        {
            "OPENAI_BASE_URL": f"{target.url}/v1",
            "OPENAI_API_KEY": target.key,
            "OPENAI_MODEL": target.model,
            "QWEN_CODE_MAX_OUTPUT_TOKENS": str(target.longest_answer),
        },
        ("--auth-type", "openai", "--model", target.model),
    )


def _aider(target: Use) -> Setup:
    model = f"openai/{target.model}"
    settings = [{"name": model, "extra_params": {"max_tokens": target.longest_answer}}]
    metadata = {
        model: {
            "max_input_tokens": target.context,
            "max_output_tokens": target.longest_answer,
            "max_tokens": target.longest_answer,
            "input_cost_per_token": 0,
            "output_cost_per_token": 0,
            "litellm_provider": "openai",
            "mode": "chat",
        }
    }
    return Setup(
        {"OPENAI_API_BASE": f"{target.url}/v1", "OPENAI_API_KEY": target.key},
        ("--model", model),
        {
            "--model-settings-file": json.dumps(settings, indent=2),
            "--model-metadata-file": json.dumps(metadata, indent=2),
        },
    )


def _continue(target: Use) -> Setup:
    wanted = {
        "name": "Squish",
        "version": "1.0.0",
        "schema": "v1",
        "models": [
            {
                "name": target.model,
                "provider": "openai",
                "model": target.model,
                "apiBase": f"{target.url}/v1",
                "apiKey": target.key,
                "roles": ["chat", "edit", "apply"],
                "capabilities": ["tool_use"],
                "defaultCompletionOptions": {"contextLength": target.context, "maxTokens": target.longest_answer},
            }
        ],
    }
    return Setup(files={"--config": json.dumps(wanted, indent=2)})


PROGRAMS: Mapping[str, Program] = {
    "claude": Program("claude", "npm install -g @anthropic-ai/claude-code", "Claude Code", _claude),
    "codex": Program("codex", "npm install -g @openai/codex", "OpenAI's Codex", _codex),
    "opencode": Program("opencode", "npm install -g opencode-ai", "opencode", _opencode),
    "qwen": Program("qwen", "npm install -g @qwen-code/qwen-code", "Qwen Code", _qwen),
    "aider": Program(
        "aider", "python -m pip install aider-install && aider-install", "aider", _aider, needs_tools=False
    ),
    "cn": Program("cn", "npm install -g @continuedev/cli", "Continue's command line", _continue),
}


def written(setup: Setup, folder: Path) -> tuple[dict[Path, str], tuple[str, ...]]:
    """The files of a setup with their places, and all arguments in front of the user's."""
    places = {flag: folder / f"{flag.strip('-')}.{'yaml' if flag == '--config' else 'json'}" for flag in setup.files}
    flags = [each for flag, path in places.items() for each in (flag, str(path))]
    return {places[flag]: text for flag, text in setup.files.items()}, (*flags, *setup.arguments)
