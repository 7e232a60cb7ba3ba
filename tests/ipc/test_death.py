"""What is said of a worker that died, from what Metal and the system leave behind."""

from __future__ import annotations

import pytest

from squish.ipc.death import explain

ABORT = -6
OUT_OF_MEMORY = (
    "libc++abi: terminating due to uncaught exception of type std::runtime_error: [METAL] Command buffer execution "
    "failed: Insufficient Memory (00000008:kIOGPUCommandBufferCallbackErrorOutOfMemory)"
)
WATCHDOG = (
    "libc++abi: terminating due to uncaught exception of type std::runtime_error: [METAL] Command buffer execution "
    "failed: Caused GPU Timeout Error (00000002:kIOGPUCommandBufferCallbackErrorTimeout)"
)
INTERACTIVITY = "Impacting Interactivity (0000000e:kIOGPUCommandBufferCallbackErrorImpactingInteractivity)"


@pytest.mark.parametrize(
    ("code", "stderr", "message", "hint"),
    [
        (ABORT, ["loading", OUT_OF_MEMORY], "The GPU ran out of memory for this model.", "iogpu.wired_limit_mb"),
        (
            ABORT,
            [OUT_OF_MEMORY.replace("Insufficient Memory", "Another language")],
            "The GPU ran out of memory",
            "smaller",
        ),
        (ABORT, [WATCHDOG, "Abort trap: 6"], "took the GPU away", "Other programs"),
        (ABORT, [INTERACTIVITY], "took the GPU away", "Other programs"),
        (ABORT, ["some assertion"], "was ended by SIGABRT. It last said: some assertion", ""),
        (-9, [], "was ended by SIGKILL.", "run out of memory"),
        (3, ["gone"], "ended with exit code 3. It last said: gone", ""),
    ],
)
def test_a_death_is_explained(code: int, stderr: list[str], message: str, hint: str) -> None:
    error = explain(code, stderr)
    assert message in error.message
    assert hint in (error.hint or "")
