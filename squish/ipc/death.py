"""Why a worker process died, in words: from its exit code and what it, or a native library in it, wrote last."""

from __future__ import annotations

import signal

from squish.errors import WorkerDied
from squish.ipc.limits import memory_limit

_GPU_MEMORY = ("Insufficient Memory", "ErrorOutOfMemory")
_GPU_TIMEOUT = ("CommandBufferCallbackErrorTimeout", "ErrorImpactingInteractivity", "Caused GPU Timeout")


def explain(code: int, stderr: list[str]) -> WorkerDied:
    """The error for a worker that ended. code: as of subprocess, below zero for a signal.

    Metal reports what it cannot do by ending the process: an exception in a thread of its own, and SIGABRT.
    """
    text = "\n".join(stderr)
    if any(mark in text for mark in _GPU_MEMORY):
        return WorkerDied(
            "The GPU ran out of memory for this model.",
            hint="Take a smaller or more compressed model or a shorter context, or unload other models. How much the "
            "GPU may have is set by: sudo sysctl iogpu.wired_limit_mb=MEGABYTES",
        )
    if any(mark in text for mark in _GPU_TIMEOUT):
        return WorkerDied(
            "The system took the GPU away from this model because a step took too long.",
            hint="Other programs that use the GPU, or a model that does not fit into memory, make steps slow.",
        )
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    hint = memory_limit() or ("It may have run out of memory." if code == -signal.SIGKILL else None)
    detail = f" It last said: {stderr[-1]}" if stderr else ""
    return WorkerDied(f"The worker process of this model {how}.{detail}", hint=hint)
