"""What limits a process and those that it starts, as `ulimit` sets it: for libraries that meet it end in many ways."""

from __future__ import annotations

import errno
import resource

_MARKS = ("can't start new thread", "Resource temporarily unavailable")


def memory_limit() -> str | None:
    """What to say of a limit of memory; None where there is none."""
    limits = [resource.getrlimit(each)[0] for each in (resource.RLIMIT_AS, resource.RLIMIT_DATA)]
    least = min((limit for limit in limits if limit != resource.RLIM_INFINITY), default=None)
    if least is None:
        return None
    return f"Memory is limited to {least / 1e9:.2f} GB here, which may be too little: see ulimit -v and ulimit -d."


def process_limit() -> str:
    """What to say where a process or a thread could not be started; too little memory for its stack is a reason too."""
    if (memory := memory_limit()) is not None:
        return memory
    most = resource.getrlimit(resource.RLIMIT_NPROC)[0]
    allowed = "" if most == resource.RLIM_INFINITY else f" {most:,} are allowed for this user: see ulimit -u."
    return f"Close other programs.{allowed}"


def is_of_processes(error: BaseException) -> bool:
    """Whether an error says that a process or a thread could not be started."""
    is_eagain = isinstance(error, OSError) and error.errno == errno.EAGAIN
    return is_eagain or (isinstance(error, RuntimeError) and any(each in str(error) for each in _MARKS))
