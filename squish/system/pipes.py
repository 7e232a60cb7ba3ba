"""The pipes between us and a process that we have started with asyncio."""

from __future__ import annotations

import asyncio


def let_go(process: asyncio.subprocess.Process) -> None:
    """Close our ends, whoever holds the others: a process that it has left behind may, for good.

    asyncio waits for a process only once its pipes are closed; and a pipe that nobody reads is never seen to end.
    """
    transport: asyncio.SubprocessTransport = process._transport  # type: ignore[attr-defined]
    for number in range(3):
        pipe = transport.get_pipe_transport(number)
        if isinstance(pipe, asyncio.WriteTransport) and pipe.get_write_buffer_size():
            pipe.abort()
        elif pipe is not None:
            pipe.close()
