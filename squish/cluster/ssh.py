"""An agent on another machine, started by ssh: its standard input and output are the connection.

Nothing secret is on the command line, which other users there can read. When ssh ends, so does the agent.
"""

from __future__ import annotations

import asyncio
import shlex
from contextlib import suppress

from squish.cluster.channel import Channel, find_magic
from squish.cluster.connection import HostConnection, opened
from squish.cluster.hosts import GroupHost
from squish.cluster.messages import FromAgent, ToAgent
from squish.errors import EngineError
from squish.ipc.environment import environment
from squish.ipc.last_lines import LastLines
from squish.ipc.remains import wait_then_insist
from squish.text import clean

_CONNECT = 10  # seconds that ssh tries
_BEGIN = 40.0  # seconds until the agent's first word
_GRACE = 3.0
_OPTIONS = (
    "BatchMode=yes",  # no question is asked: nobody may be there to answer
    f"ConnectTimeout={_CONNECT}",
    "ServerAliveInterval=5",
    "ServerAliveCountMax=3",
    "ForwardAgent=no",
    "ForwardX11=no",
    "ClearAllForwardings=yes",
)


def command(host: GroupHost, rank: int) -> tuple[str, ...]:
    """The ssh command that starts the agent of a host."""
    options = [part for option in _OPTIONS for part in ("-o", option)]
    program = f"{_quoted(host.python)} -P -m squish" if host.python else _quoted(host.squish)
    return ("ssh", "-T", *options, "--", host.ssh, f"{program} worker --rank {rank}")


async def open_ssh(host: GroupHost, rank: int) -> HostConnection:
    """Start the agent of a host. Raises EngineError that says why it could not be, and what to do."""
    try:
        process = await asyncio.create_subprocess_exec(
            *command(host, rank),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment(),
            start_new_session=True,  # Ctrl-C in the terminal is the front process's to handle
        )
    except OSError as error:
        hint = "Install an OpenSSH client, or start this rank by hand: leave ssh out in hosts.toml."
        raise EngineError(f"ssh cannot be started: {error.strerror}.", hint=hint) from None
    assert process.stdin and process.stdout
    ending = _Ending(process)
    channel: Channel[ToAgent, FromAgent] = Channel(process.stdout, process.stdin, FromAgent)  # type: ignore[arg-type]
    try:
        async with asyncio.timeout(_BEGIN):
            began = await find_magic(process.stdout)
    except TimeoutError:
        await ending.end()
        hint = f"Try it: {shlex.join(command(host, rank))}"
        raise EngineError(f"{host.name} ({host.ssh}) did not start Squish in {_BEGIN:.0f} s.", hint=hint) from None
    except BaseException:
        await ending.end()
        raise
    if not began:
        await ending.end()
        raise explain(host, process.returncode or 0, ending.lines)
    return await opened(host, rank, channel, ending.end)


class _Ending:
    """The end of an ssh process, and what it said on its standard error."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._stderr = LastLines(process)

    @property
    def lines(self) -> list[str]:
        return [shown for each in self._stderr.lines if (shown := clean(each).strip())]

    async def end(self) -> str:
        """End it, at once where it does not by itself; the last line that it said."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        await wait_then_insist(self._process, self._stderr, self._kill, _GRACE)
        return next(reversed(self.lines), "")

    def _kill(self) -> None:
        """It alone: a connection that ssh shares with others stays."""
        with suppress(ProcessLookupError):
            self._process.kill()


def explain(host: GroupHost, code: int, lines: list[str]) -> EngineError:
    """Why ssh, or the program that it was to start, ended before it said anything. code: of its exit."""
    said = " ".join(lines)
    last = lines[-1] if lines else f"ssh ended with exit code {code}"
    where = f"{host.name} ({host.ssh})"
    if "Host key verification failed" in said or "authenticity of host" in said:
        hint = f"Connect once by hand and compare its key: ssh {host.ssh}"
        return EngineError(f"{where}: this machine does not know the host key, or it has changed.", hint=hint)
    if "Permission denied" in said:
        hint = f"ssh must get in without a password: ssh-copy-id {host.ssh}, or ssh-add your key."
        return EngineError(f"{where} does not let ssh in: {last}.", hint=hint)
    if "Could not resolve hostname" in said:
        hint = "Check ssh in hosts.toml."
        return EngineError(f"{where} cannot be reached: its name cannot be looked up.", hint=hint)
    if code == 255:
        hint = f"Is it on, and does ssh work there (macOS: System Settings, Sharing, Remote Login)? Try: ssh {host.ssh}"
        return EngineError(f"{where} cannot be reached: {last}.", hint=hint)
    if code in (126, 127) or "No such file" in last or "not found" in last:
        program = host.python or host.squish
        hint = 'Name it in hosts.toml: squish = "/path/to/squish" (there, `command -v squish` prints it).'
        return EngineError(f"{where}: {program} cannot be run: {last}.", hint=hint)
    if "No such command" in said or "No module named squish" in said:
        hint = "Install the Squish of this machine there."
        return EngineError(f"{where}: the Squish there has no `squish worker`: it is older, or missing.", hint=hint)
    hint = f"Try it: ssh {host.ssh} {host.python or host.squish} --version"
    return EngineError(f"{where}: Squish could not be started there: {last}.", hint=hint)


def _quoted(program: str) -> str:
    """A path for the shell of that machine; a home directory in front of it is that shell's to find."""
    return f"~/{shlex.quote(program[2:])}" if program.startswith("~/") else shlex.quote(program)
