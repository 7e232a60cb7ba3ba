"""The program in a shell: versions, exit codes, help, completion, running servers."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest

from squish import __version__
from squish.cli import cli
from squish.commands.exits import Exit
from squish.commands.serving.servers import stop
from squish.errors import SquishError
from squish.system import servers
from tests.conftest import MODEL, PATIENCE, SQUISH

Squish = Callable[..., subprocess.CompletedProcess[str]]


def commands(group: click.Group, *path: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command and where it is."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, *path, name)
        yield (*path, name), command


def test_the_version_tells_what_squish_stands_on(squish: Squish) -> None:
    said = squish("--version").stdout
    assert said.startswith(f"squish {__version__} · MLX ")
    assert "mlx-lm" in said
    assert any(f"({backend})" in said for backend in ("CPU", "Metal", "CUDA"))


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("list",), Exit.DONE),
        (("stop", "1"), Exit.FAILED),
        (("list", "--colour"), Exit.WRONG_COMMAND),
        (("no-such-command",), Exit.WRONG_COMMAND),
        (("bench", MODEL, "--compare", "nowhere"), Exit.WRONG_COMMAND),
        (("rm", "nothing:1b"), Exit.NO_SUCH_MODEL),
        (("bench", "nothing:1b"), Exit.NO_SUCH_MODEL),
    ],
)
def test_exit_codes_are_those_of_the_table(squish: Squish, arguments: tuple[str, ...], code: Exit) -> None:
    done = squish(*arguments)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr


def test_a_number_that_is_none_is_told_what_may_stand_there(squish: Squish) -> None:
    assert "'x' is not a whole number. Write one from 1 to 100." in squish("bench", MODEL, "--rounds", "x").stderr
    assert "'x' is not a whole number. Write one of at least 1." in squish("chats", "list", "--limit", "x").stderr


def test_a_wrong_setting_is_a_wrong_command(squish: Squish, tmp_path: Path) -> None:
    (tmp_path / ".squish").mkdir()
    (tmp_path / ".squish" / "config.toml").write_text("ports = 1\n")
    done = squish("list", HOME=str(tmp_path))
    assert done.returncode == Exit.WRONG_COMMAND
    assert "line 1: ports is not a setting." in done.stderr


def test_a_command_is_called_by_its_own_name() -> None:
    assert {name: command.name for name, command in cli.commands.items()} == {name: name for name in cli.commands}


@pytest.mark.parametrize(("path", "command"), list(commands(cli)), ids=lambda value: str(value)[:40])
def test_every_command_has_help_with_an_example(path: tuple[str, ...], command: click.Command) -> None:
    text = command.help or ""
    assert text.strip(), path
    assert f"squish {' '.join(path)}" in text, f"squish {' '.join(path)} --help has no example"
    for parameter in command.params:
        if isinstance(parameter, click.Option) and parameter.type is not None and not parameter.hidden:
            assert parameter.help or parameter.type.name == "choice", f"{path}: {parameter.opts} is not explained"


def test_the_list_of_commands_has_whole_sentences(squish: Squish) -> None:
    said = squish("--help").stdout + squish("chats", "--help").stdout + squish("config", "--help").stdout
    assert [line for line in said.splitlines() if line.startswith("  ") and line.endswith("...")] == []


def test_a_wrong_variable_does_not_keep_doctor_and_config_from_helping(squish: Squish, tmp_path: Path) -> None:
    wrong = {"HOME": str(tmp_path), "SQUISH_PORT": "http"}
    assert squish("config", "path", **wrong).returncode == 0
    shown = squish("config", "show", **wrong)
    assert (shown.returncode, "keep_alive" in shown.stdout) == (Exit.WRONG_COMMAND, True)
    assert "SQUISH_PORT" in shown.stderr


@pytest.mark.parametrize(("debug", "shown"), [("0", False), ("true", True), ("1", True)])
def test_tracebacks_are_for_those_who_ask(squish: Squish, debug: str, shown: bool) -> None:
    assert ("Traceback" in squish("show", "nothing:1b", SQUISH_DEBUG=debug).stderr) is shown


def test_config_is_written_once_and_never_again(squish: Squish, tmp_path: Path) -> None:
    path = Path(squish("config", "path", HOME=str(tmp_path)).stdout.strip())
    assert squish("config", "init", HOME=str(tmp_path)).returncode == 0
    path.write_text("port = 8123\n")
    again = squish("config", "init", HOME=str(tmp_path))
    assert (again.returncode, path.read_text()) == (Exit.WRONG_COMMAND, "port = 8123\n")
    shown = {each["name"]: each for each in json.loads(squish("config", "show", "--json", HOME=str(tmp_path)).stdout)}
    assert shown["port"] == {"name": "port", "value": "8123", "source": f"{path}, line 1"}
    assert shown["host"]["source"] == "default"
    hidden = squish("config", "show", HOME=str(tmp_path), SQUISH_API_KEY="hushhush").stdout
    assert "hushhush" not in hidden
    assert "SQUISH_API_KEY" in hidden


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_commands_and_installed_models(squish: Squish, shell: str) -> None:
    assert "_SQUISH_COMPLETE" in squish("completion", shell).stdout
    words = {"bash": "squish run smol", "zsh": "squish run smol", "fish": "squish run smol"}[shell]
    done = squish(_SQUISH_COMPLETE=f"{shell}_complete", COMP_WORDS=words, COMP_CWORD="smol" if shell == "fish" else "2")
    assert MODEL in done.stdout


_ZSH = """
autoload -Uz compinit; compinit -u -D
eval "$(squish completion zsh)"
_describe() { while [[ $1 == -* ]]; do shift; done; shift; print -rl -- ${(P)1} }
compadd() { print -rl -- ${(P)@[-1]} }
words=(squish run smol); CURRENT=3
_squish_completion
"""
_FISH = 'squish completion fish | source; complete -C "squish run smol"'


@pytest.mark.parametrize(("shell", "options", "program"), [("zsh", ["-f"], _ZSH), ("fish", ["--no-config"], _FISH)])
def test_a_real_shell_completes_models(
    environment: dict[str, str], shell: str, options: list[str], program: str
) -> None:
    """In zsh with its two functions that show what is found replaced by ones that print it."""
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell}")
    path = f"{Path(SQUISH).parent}:{environment['PATH']}"
    done = subprocess.run(
        [shell, *options, "-c", program],
        env=environment | {"PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == [MODEL], done.stderr


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.parametrize(
    ("line", "replies"),
    [
        ("squish ru", ["run"]),
        ("squish run smol", [MODEL]),
        pytest.param(f"squish run {MODEL[:-2]}", [MODEL.split(":")[1]], marks=pytest.mark.long),
        ("squish pull smollm2:36", ["360m"]),
    ],
)
def test_bash_completes_names_with_a_colon(environment: dict[str, str], line: str, replies: list[str]) -> None:
    program = (
        'eval "$(squish completion bash)"; COMP_LINE=$1; COMP_POINT=${#1}; COMP_CWORD=1; '
        "_squish_completion squish; printf '%s\\n' \"${COMPREPLY[@]}\""
    )
    path = f"{Path(SQUISH).parent}:{environment['PATH']}"
    done = subprocess.run(
        ["bash", "--norc", "-c", program, "-", line],
        env=environment | {"PATH": path},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    assert done.stdout.split() == replies, done.stderr


def test_ps_shows_a_running_server_and_stop_ends_it(
    squish: Squish, real_home: Path, environment: dict[str, str]
) -> None:
    assert squish("ps", "--json").stdout.strip() == "[]"
    alone = squish("stop")
    assert (alone.returncode, "`squish serve` starts one" in alone.stderr) == (Exit.FAILED, True)
    with subprocess.Popen(
        [SQUISH, "serve", "--port", "0"], env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    ) as process:
        try:
            assert process.stderr is not None
            assert "Squish serves" in process.stderr.readline()
            [server] = json.loads(squish("ps", "--json").stdout)
            assert (server["pid"], server["models"]) == (process.pid, [])
            assert server["url"] in squish("ps").stdout
            assert squish("stop").returncode == 0
            assert process.wait(PATIENCE) == 0
        finally:
            process.kill()
    assert squish("ps", "--json").stdout.strip() == "[]"
    assert servers.servers(real_home / ".squish") == ()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has another name for a long path")
async def test_a_server_of_a_home_with_a_long_path_is_found(tmp_path: Path) -> None:
    home = tmp_path / ("a" * 120)
    async with servers.Announcement(home, list) as announcement:
        announcement.listening("http://here")
        [found] = await asyncio.to_thread(servers.servers, home)
        assert found.url == "http://here"
    assert servers.servers(home) == ()
    assert list((home / "run").iterdir()) == []


def test_what_a_killed_server_left_behind_is_no_server(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    program = "import os, socket, sys\nos.chdir(sys.argv[1])\nsocket.socket(socket.AF_UNIX).bind('1.sock')"
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "run")], check=True)
    assert servers.servers(tmp_path) == ()
    assert list((tmp_path / "run").iterdir()) == []


async def test_a_full_screen_chat_is_not_ended_with_the_server_that_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[int] = []
    monkeypatch.setattr(servers, "stop", lambda server: ended.append(server.pid))
    monkeypatch.setenv("HOME", str(tmp_path))
    async with servers.Announcement(tmp_path / ".squish", list, beside=True) as announcement:
        announcement.listening("http://here")
        for process in (None, os.getpid()):
            with pytest.raises(SquishError, match="http://here is served by a full-screen chat"):
                await asyncio.to_thread(stop.callback, process, True)  # type: ignore[arg-type]
    assert ended == []
