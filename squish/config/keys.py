"""What can be set: every key with its variable, kind, bounds and meaning, and the sample of config.toml made of them.

KEYS is the one list of what there is: the file, the variables, `squish config` and the reference page are made from it.
"""

from __future__ import annotations

import math
from typing import Literal

import msgspec

DEFAULT_PORT = 11435
DEFAULT_ENDPOINT = "https://huggingface.co"

Kind = Literal["text", "choice", "path", "address", "secret", "whole", "time", "flag"]


class Key(msgspec.Struct, frozen=True):
    """name: in config.toml, as `table.key` where it is in a table. variable: in the environment.

    in_file is False for what belongs in no file. shown_default: for people. low and high bound a number; choices are
    the texts that a choice can be.
    """

    name: str
    variable: str
    kind: Kind
    about: str
    shown_default: str
    low: float = -math.inf
    high: float = math.inf
    in_file: bool = True
    choices: tuple[str, ...] = ()

    @property
    def field(self) -> str:
        """Of Settings."""
        return self.name.rpartition(".")[2]


KEYS: tuple[Key, ...] = (
    Key("model", "SQUISH_MODEL", "text", "the model that the full-screen chat opens with and `squish bench` measures",
        "the first installed; in the chat, that of the last one"),
    Key("host", "SQUISH_HOST", "text", "the address that `squish serve` listens on", "127.0.0.1"),
    Key("port", "SQUISH_PORT", "whole", "the port that `squish serve` listens on; 0 takes a free one",
        "11435", 0, 65535),
    Key("keep_alive", "SQUISH_KEEP_ALIVE", "time",
        'how long an idle model stays in memory: seconds, or a text like "10m" or "2h"; -1 is forever', "300"),
    Key("max_queue", "SQUISH_MAX_QUEUE", "whole", "requests that may wait for a model; more are refused with 429",
        "64", 0, 100_000),
    Key("max_concurrency", "SQUISH_MAX_CONCURRENCY", "whole", "answers that a model generates at the same time",
        "32", 1, 256),
    Key("offline", "SQUISH_OFFLINE", "flag", "make no connection at all; models must already be installed", "0"),
    Key("cache_dir", "SQUISH_CACHE_DIR", "path", "where models are kept", "~/.squish/models"),
    Key("hub_endpoint", "HF_ENDPOINT", "address", "another Hugging Face Hub", DEFAULT_ENDPOINT),
    Key("catalog", "SQUISH_CATALOG", "text",
        "a newer catalog of short names: a file, or an address that `squish catalog update` fetches", "none"),
    Key("theme", "SQUISH_THEME", "text", "the colors of the full-screen chat", "squish"),
    Key("chat.titles", "SQUISH_CHAT_TITLES", "flag",
        "a new chat gets a short title from its model after the first answer, while the model is idle", "1"),
    Key("engine.cpu_precision", "SQUISH_CPU_PRECISION", "choice",
        "on a CPU, activations in products with weights: `int8`, or `float32`, slower and exact", "int8",
        choices=("int8", "float32")),
    Key("engine.kv_bits", "SQUISH_KV_BITS", "choice",
        "on a CPU, bits per value of the KV cache: 32, 16 or 8; `auto` is 16, or 32 for models without a choice",
        "auto", choices=("auto", "32", "16", "8")),
    Key("engine.wire", "SQUISH_WIRE", "choice",
        "on a Mac, `weights` keeps weights from being swapped; see docs/macos.md for the risk", "nothing",
        choices=("nothing", "weights")),
    Key("engine.short_memory", "SQUISH_SHORT_MEMORY", "choice",
        "on a Mac, if too little memory is free for a model, `load` it for an API request anyway, or `refuse`",
        "load", choices=("load", "refuse")),
    Key("engine.prompt_lookup", "SQUISH_PROMPT_LOOKUP", "flag",
        "guess how an answer continues from its prompt, and verify several tokens at once; no answer changes",
        "1"),
    Key("telemetry.otlp_endpoint", "SQUISH_OTLP_ENDPOINT", "address",
        "the OpenTelemetry collector for traces, if OTEL_EXPORTER_OTLP_ENDPOINT is not set", "none"),
    Key("telemetry.service_name", "SQUISH_SERVICE_NAME", "text",
        "the name of this server in traces, if OTEL_SERVICE_NAME is not set", "squish"),
    Key("keep_awake", "SQUISH_KEEP_AWAKE", "flag",
        "on a Mac, `squish serve` keeps it awake even with nothing to answer", "0"),
    Key("api_key", "SQUISH_API_KEY", "secret",
        "when set, every API request must send `Authorization: Bearer <key>`", "none", in_file=False),
    Key("hf_token", "HF_TOKEN", "secret", "Hugging Face token, for models with a license to accept", "none",
        in_file=False),
    Key("debug", "SQUISH_DEBUG", "flag", "show tracebacks", "0", in_file=False),
)  # fmt: skip

ELSEWHERE: tuple[tuple[str, str, str], ...] = (
    ("SQUISH_CPU_KERNEL", "the fastest", "on Linux, for diagnosis: one of the kernels that `squish doctor` lists"),
    ("SQUISH_BLAS", "auto", "on Linux, for diagnosis: `auto`, `system` or `mlx`"),
    ("OPENAI_API_KEY", "none", "the key of the server that `squish bench --compare` measures"),
    ("HF_HOME", "~/.cache/huggingface", "where `squish import` finds the Hugging Face cache, in its folder `hub`"),
    ("HF_HUB_CACHE", "$HF_HOME/hub", "the cache itself"),
    ("OLLAMA_MODELS", "~/.ollama/models", "where `squish import` finds Ollama's models"),
    ("SQUISH_JOIN_TOKEN", "none", "the token of ranks that are started by hand: `squish worker --join`"),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "none", "the OpenTelemetry collector, as OpenTelemetry has it: docs/server.md"),
    ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "none", "the full address for traces, which overrides that"),
    ("OTEL_SERVICE_NAME", "squish", "what traces call this server"),
    ("NO_COLOR", "none", "no colors"),
)
"""Variables that are read where they are used and set nothing in Settings: name, default, meaning."""


class NamedTable(msgspec.Struct, frozen=True):
    """A table of config.toml whose keys are names of their own. example: a line of it.

    entry: the name of an example whose value is a table itself.
    """

    name: str
    about: str
    example: str
    entry: str = ""

    @property
    def header(self) -> str:
        return f"{self.name}.{self.entry}" if self.entry else self.name


TABLES: tuple[NamedTable, ...] = (
    NamedTable("keys", "other keys for the full-screen chat: what F1 lists, by its id", '"chat.new" = "ctrl+n"'),
    NamedTable("model_keep_alive", "keep_alive for single models, by the names that `squish list` shows",
        '"smollm2:135m" = "2h"'),
    NamedTable("models", "a model's defaults in new chats and `squish run`: a preset, parameters; see docs/chat.md",
        'temperature = 0.2', '"smollm2:135m"'),
    NamedTable("draft", "smaller models that draft for others; see docs/speculation.md", '"qwen3:8b" = "qwen3:0.6b"'),
)  # fmt: skip

KEYS_IN_FILE = {key.name: None if key.in_file else key.variable for key in KEYS}
"""Every name; for one that belongs in no file, the variable to use instead."""


_EXAMPLES = {"model": "smollm2:135m", "telemetry.otlp_endpoint": "http://localhost:4318"}
"""What the sample shows for keys that have no default."""


def sample() -> str:
    """A config.toml with every key, its meaning and its default, all of it commented out."""
    lines = [
        "# Settings of Squish. Environment variables override this file, flags override both.",
        "# Squish reads this file and never writes it again. Secrets belong in the environment, not here.",
    ]
    inside = ""
    for key in sorted((key for key in KEYS if key.in_file), key=lambda key: key.name.rpartition(".")[0]):
        lines += ["", f"# {key.about[0].upper()}{key.about[1:]}. ({key.variable})"]
        if (own := key.name.rpartition(".")[0]) != inside:
            lines.append(f"# [{(inside := own)}]")
        lines.append(f"# {key.field} = {_toml(key)}")
    for table in TABLES:
        lines += ["", f"# {table.about[0].upper()}{table.about[1:]}.", f"# [{table.header}]", f"# {table.example}"]
    return "\n".join(lines) + "\n"


def _toml(key: Key) -> str:
    """The default as config.toml would spell it; for what has none, an example."""
    if key.kind == "flag":
        return "false"
    if key.kind in ("whole", "time"):
        return key.shown_default
    return f'"{_EXAMPLES.get(key.name, key.shown_default)}"'
