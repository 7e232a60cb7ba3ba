"""A second machine for tests: a real sshd on loopback, as this user, with keys, a home and a PATH of its own."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.ports import own_port

SSHD = shutil.which("sshd", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class SshMachine:
    """home: of whoever comes in by ssh; bin: comes first in its PATH; ssh: a folder with an `ssh` that gets there."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes]

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def bin(self) -> Path:
        return self.folder / "bin"

    @property
    def ssh(self) -> Path:
        return self.folder / "ssh"

    def program(self, name: str, text: str) -> str:
        """A program on that machine; its path."""
        path = self.bin / name
        path.write_text(text, encoding="utf-8")
        path.chmod(0o755)
        return str(path)

    def sessions(self) -> list[int]:
        """The sshd processes of connections that are open now."""
        import psutil

        return [each.pid for each in psutil.Process(self.process.pid).children()]

    def cut(self) -> None:
        """End every connection as if a cable were pulled out: nobody says goodbye."""
        for pid in self.sessions():
            with suppress(ProcessLookupError):  # it has just ended by itself
                os.kill(pid, signal.SIGKILL)

    def close(self) -> None:
        self.cut()
        self.process.terminate()
        self.process.wait()


def need_sshd() -> None:
    if SSHD is None or shutil.which("ssh") is None or shutil.which("ssh-keygen") is None:
        pytest.skip("OpenSSH's sshd is not installed (Debian: openssh-server)")


def start(folder: Path) -> SshMachine:
    """A running sshd. For the ssh in `ssh`, `elsewhere` leads to it, and other names to what does not work."""
    need_sshd()
    for name in ("home", "bin", "ssh"):
        (folder / name).mkdir(parents=True)
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    port = own_port()
    (folder / "authorized").write_bytes((folder / "user.pub").read_bytes())
    (folder / "known").write_text(f"[127.0.0.1]:{port} {(folder / 'host.pub').read_text()}", encoding="utf-8")
    (folder / "sshd_config").write_text(_sshd_config(folder, port), encoding="utf-8")
    (folder / "ssh_config").write_text(_ssh_config(folder, port), encoding="utf-8")
    program = folder / "ssh" / "ssh"
    program.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {folder / "ssh_config"} "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where root's sshd wants to be shut in
    assert SSHD is not None
    command: list[str | Path] = [SSHD, "-D", "-e", "-f", folder / "sshd_config"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stderr=log, stdin=subprocess.DEVNULL)
    _wait_for(port, process, folder / "log")
    return SshMachine(folder, port, process)


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    while True:
        if process.poll() is not None:
            pytest.skip(f"sshd does not run here: {log.read_text()[-300:]}")
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except ConnectionRefusedError:
            continue


def _sshd_config(folder: Path, port: int) -> str:
    passed = {"HOME": folder / "home", "PATH": f"{folder / 'bin'}:{BIN}:/usr/bin:/bin", "SQUISH_OFFLINE": "1"}
    variables = " ".join(f'"{name}={value}"' for name, value in passed.items())
    return "\n".join((
        f"Port {port}", "ListenAddress 127.0.0.1", f"HostKey {folder / 'host'}",
        f"AuthorizedKeysFile {folder / 'authorized'}", "PidFile none", "StrictModes no", "UsePAM no",
        "PasswordAuthentication no", "KbdInteractiveAuthentication no", "PermitRootLogin prohibit-password",
        f"SetEnv {variables}", "",
    ))  # fmt: skip


def _ssh_config(folder: Path, port: int) -> str:
    return "\n".join((
        "Host elsewhere", "  HostName 127.0.0.1", f"  Port {port}", f"  User {getpass.getuser()}",
        f"  IdentityFile {folder / 'user'}", "  IdentitiesOnly yes", f"  UserKnownHostsFile {folder / 'known'}",
        "  GlobalKnownHostsFile none",
        "Host nowhere", "  HostName 127.0.0.1", f"  Port {own_port()}",
        "Host stranger", "  HostName 127.0.0.1", f"  Port {port}", "  UserKnownHostsFile none",
        "Host locked", "  HostName 127.0.0.1", f"  Port {port}", f"  IdentityFile {folder / 'host'}",
        "  IdentitiesOnly yes", f"  UserKnownHostsFile {folder / 'known'}", "Host *", "  GlobalKnownHostsFile none", "",
    ))  # fmt: skip
