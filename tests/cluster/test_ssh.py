"""What is typed to ssh, and what its many ways to fail mean."""

from __future__ import annotations

import shlex

import pytest

from squish.cluster.hosts import GroupHost
from squish.cluster.ssh import command, explain

MINI = GroupHost("mini", "10.0.0.2", ssh="me@mini.local")


def typed(host: GroupHost) -> str:
    """The words for the shell of the other machine."""
    return command(host, 2)[-1]


def test_nothing_is_asked_and_nothing_is_forwarded() -> None:
    words = command(MINI, 2)
    assert words[:2] == ("ssh", "-T") and words[-3:-1] == ("--", "me@mini.local")
    assert {"BatchMode=yes", "ForwardAgent=no"} <= set(words)
    assert typed(MINI) == "squish worker --rank 2"


@pytest.mark.parametrize(
    ("host", "words"),
    [
        (GroupHost("m", "10.0.0.2", ssh="m", squish="/opt/my apps/squish"), ["/opt/my apps/squish"]),
        (GroupHost("m", "10.0.0.2", ssh="m", squish="x; rm -rf /"), ["x; rm -rf /"]),
        (GroupHost("m", "10.0.0.2", ssh="m", python="/venv/bin/python"), ["/venv/bin/python", "-P", "-m", "squish"]),
    ],
)
def test_programs_are_quoted(host: GroupHost, words: list[str]) -> None:
    assert shlex.split(typed(host)) == [*words, "worker", "--rank", "2"]


def test_a_home_directory_is_found_by_the_shell_there() -> None:
    assert typed(GroupHost("m", "10.0.0.2", ssh="m", squish="~/my venv/squish")).startswith("~/'my venv/squish' worker")


@pytest.mark.parametrize(
    ("code", "lines", "said", "hint"),
    [
        (255, ["Host key verification failed."], "does not know the host key", "ssh me@mini.local"),
        (255, ["me@mini: Permission denied (publickey)."], "does not let ssh in", "ssh-copy-id me@mini.local"),
        (
            255,
            ["ssh: Could not resolve hostname x: Name or service not known"],
            "mini (me@mini.local) cannot be reached: its name cannot be looked up.",
            "hosts.toml",
        ),
        (255, ["ssh: connect to host x port 22: Connection refused"], "cannot be reached", "Remote Login"),
        (255, [], "cannot be reached: ssh ended with exit code 255", "Remote Login"),
        (127, ["sh: 1: squish: not found"], "squish cannot be run", 'squish = "/path/to/squish"'),
        (2, ["Usage: squish", "Error: No such command 'worker'."], "has no `squish worker`", "Install the Squish"),
        (1, ["/bin/python: No module named squish"], "has no `squish worker`", "Install the Squish"),
        (1, ["Traceback", "ImportError: x"], "could not be started there: ImportError: x", "--version"),
    ],
)
def test_why_ssh_ended(code: int, lines: list[str], said: str, hint: str) -> None:
    error = explain(MINI, code, lines)
    assert "mini (me@mini.local)" in error.message and said in error.message
    assert error.hint and hint in error.hint
