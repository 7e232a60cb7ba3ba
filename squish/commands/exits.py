"""The exit codes of `squish`, in one table: what a script can rely on. It knows errors, not commands."""

from __future__ import annotations

from enum import IntEnum

from squish.errors import InvalidInput, ModelNotFound, SquishError


class Exit(IntEnum):
    """A code and, in `meaning`, what it says."""

    meaning: str

    def __new__(cls, code: int, meaning: str) -> Exit:
        member = int.__new__(cls, code)
        member._value_ = code
        member.meaning = meaning
        return member

    DONE = 0, "done"
    FAILED = 1, "it failed; or `squish doctor` found something broken"
    WRONG_COMMAND = 2, "the command, a setting or a value was wrong"
    NO_SUCH_MODEL = 3, "the model does not exist"
    INTERRUPTED = 130, "Ctrl-C"
    PIPE_CLOSED = 141, "the reader closed the pipe"


def of(error: SquishError) -> Exit:
    """The exit code of an error that ended a command."""
    if isinstance(error, InvalidInput):
        return Exit.WRONG_COMMAND
    return Exit.NO_SUCH_MODEL if isinstance(error, ModelNotFound) else Exit.FAILED
