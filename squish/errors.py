"""The error tree. Every error a user can meet has a code, a message and, where one helps, a hint.

    SquishError
    ├── InvalidInput            a person or a client sent something we cannot use; `param` names it
    │   ├── ContextLengthExceeded
    │   ├── ConfigError         config.toml, an environment variable or a flag
    │   └── InvalidName         a model name outside the grammar of names.py
    ├── ModelNotFound           not installed, or nowhere to be found
    ├── UnsupportedModel        an architecture, tokenizer or quantization we do not import
    ├── CorruptModel            files on disk are not what their manifest says
    ├── StoreError              the model store cannot be read or written
    ├── ModelInUse              another process is writing or using this model
    ├── HubError                the Hub gave an invalid answer
    │   ├── HubUnreachable
    │   ├── GatedRepo
    │   └── Offline             SQUISH_OFFLINE forbids the connection
    ├── RemoteError             a server of models cannot be reached, refuses, or says something that is not its API
    ├── McpError                a server with tools cannot be reached, died, or says something that is not MCP
    ├── QueueFull               the queue is full
    └── EngineError             the engine failed; the next request may work
        ├── LoadFailed
        │   └── MemoryShort     too little is free; the system could make room for it, at a price
        └── WorkerDied

This module knows no HTTP status and no exit code: each front door owns one table from code to its own.
An error crosses the process border as (code, message, hint, param) and is rebuilt by `from_wire`.
"""

from __future__ import annotations

import re

_CREDENTIALS = re.compile(r"(?<=://)[^/\s]*@")


def without_credentials(text: str) -> str:
    """The text with the user names and passwords taken out of the addresses in it."""
    return _CREDENTIALS.sub("", text)


class SquishError(Exception):
    """Base of all errors shown to a user. A password in an address never becomes part of one.

    message: one or two sentences, what happened and to what.
    hint: what to do about it, or None.
    param: the field, flag or file at fault, or None.
    """

    code = "error"

    def __init__(self, message: str, *, hint: str | None = None, param: str | None = None) -> None:
        self.message = without_credentials(message)
        self.hint = None if hint is None else without_credentials(hint)
        super().__init__(self.message)
        self.param = param


class InvalidInput(SquishError):
    code = "invalid_input"


class ContextLengthExceeded(InvalidInput):
    code = "context_length_exceeded"


class ConfigError(InvalidInput):
    code = "config_error"


class InvalidName(InvalidInput):
    code = "invalid_name"


class ModelNotFound(SquishError):
    code = "model_not_found"


class UnsupportedModel(SquishError):
    code = "unsupported_model"


class CorruptModel(SquishError):
    code = "corrupt_model"


class StoreError(SquishError):
    code = "store_error"


class ModelInUse(SquishError):
    code = "model_in_use"


class HubError(SquishError):
    code = "hub_error"


class HubUnreachable(HubError):
    code = "hub_unreachable"


class GatedRepo(HubError):
    code = "gated_repo"


class Offline(HubError):
    code = "offline"


class McpError(SquishError):
    code = "mcp_error"


class RemoteError(SquishError):
    code = "remote_error"


class QueueFull(SquishError):
    code = "queue_full"


class EngineError(SquishError):
    code = "engine_error"


class LoadFailed(EngineError):
    code = "load_failed"


class MemoryShort(LoadFailed):
    code = "memory_short"


class WorkerDied(EngineError):
    code = "worker_died"


def from_wire(code: str, message: str, hint: str | None = None, param: str | None = None) -> SquishError:
    """Rebuild an error that crossed the process border; an unknown code becomes an EngineError."""
    return _by_code().get(code, EngineError)(message, hint=hint, param=param)


def _by_code() -> dict[str, type[SquishError]]:
    found: dict[str, type[SquishError]] = {}
    pending: list[type[SquishError]] = [SquishError]
    while pending:
        cls = pending.pop()
        found[cls.code] = cls
        pending.extend(cls.__subclasses__())
    return found
