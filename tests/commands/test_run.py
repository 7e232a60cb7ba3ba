"""`squish run` as a user's script meets it, on the real model."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import psutil
import pytest

from squish.commands.answers.run import open_model
from squish.config.settings import Settings
from tests.conftest import SQUISH

Squish = Callable[..., subprocess.CompletedProcess[str]]
MODEL = "smollm2:135m"
GERMANY = ("run", MODEL, "--prompt", "What is the capital of Germany?", "--temperature", "0")
# Until it is stopped: by default an answer ends before a machine that is slow to stop it does so.
ENDLESS = (SQUISH, "run", MODEL, "--temperature", "0", "--max-tokens", "7000")


def test_json_tells_usage_and_timings(squish: Squish) -> None:
    done = squish(*GERMANY, "--json")
    answer = json.loads(done.stdout)
    assert answer["text"] == "The capital of Germany is Berlin."
    assert answer["finish_reason"] == "stop"
    cached = answer["usage"].pop("cached_tokens")
    assert 0 <= cached < 37  # as many as another test's longer prompt on this machine has in common with it
    assert answer["usage"] == {"prompt_tokens": 37, "completion_tokens": 8, "total_tokens": 45}
    assert answer["timings"]["ttft_s"] > 0


def test_only_the_answer_is_on_stdout_and_piped_text_is_part_of_the_prompt(squish: Squish) -> None:
    done = squish(
        "run", MODEL, "--prompt", "What is the capital of", "--temperature", "0", "--json", stdin="Germany?\n"
    )
    assert "Berlin" in json.loads(done.stdout)["text"]
    alone = squish("run", MODEL, "--temperature", "0", stdin="What is the capital of Germany?")
    assert (alone.returncode, alone.stdout) == (0, "The capital of Germany is Berlin.\n")


def test_stop_seed_and_max_tokens(squish: Squish) -> None:
    stopped = squish(*GERMANY, "--stop", "Berlin")
    assert (stopped.returncode, stopped.stdout) == (0, "The capital of Germany is \n")
    story = ("run", MODEL, "--prompt", "Tell a story.", "--seed", "7", "--max-tokens", "12", "--json")
    one, other = [json.loads(squish(*story).stdout) for _ in range(2)]
    assert one["text"] == other["text"]
    assert (one["finish_reason"], one["usage"]["completion_tokens"]) == ("length", 12)


def test_an_answer_that_is_cut_off_says_so_beside_it(squish: Squish) -> None:
    story = squish(*GERMANY[:2], "--prompt", "Tell a story.", "--seed", "7", "--max-tokens", "12")
    assert story.returncode == 0 and story.stdout.strip()
    assert "limit of 12 tokens" in story.stderr and "--max-tokens" in story.stderr
    number = squish(*GERMANY, "--format", "regex:[0-9]+", "--max-tokens", "2")
    assert number.returncode == 0 and number.stdout.strip().isdigit() and "limit of 2 tokens" in number.stderr
    half = squish(*GERMANY, "--format", "json", "--max-tokens", "2")
    assert half.returncode == 1 and half.stdout.startswith("{")
    assert "before its JSON was complete" in half.stderr and "--max-tokens" in half.stderr


def test_an_answer_that_fills_the_context_says_that(squish: Squish) -> None:
    story = squish(*GERMANY[:2], "--prompt", "Tell a long story.", "--seed", "7", "--context", "60")
    assert story.returncode == 0 and story.stdout.strip()
    assert "end of the context of 60 tokens" in story.stderr and "--context" in story.stderr
    assert "--max-tokens" not in story.stderr
    whole = squish(*GERMANY[:2], "--prompt", "Tell a long story.", "--seed", "7", "--context", "60", "--json")
    assert json.loads(whole.stdout)["finish_reason"] == "context"


def test_an_answer_is_held_to_a_schema_in_a_file(squish: Squish, tmp_path: Path) -> None:
    schema = tmp_path / "city.schema.json"
    schema.write_text('{"type": "object", "properties": {"city": {"enum": ["Berlin", "Paris"]}}, "required": ["city"]}')
    done = squish(*GERMANY[:4], "--preset", "greedy", "--format", str(schema))
    assert json.loads(done.stdout)["city"] in ("Berlin", "Paris")


def test_the_system_prompt_counts(squish: Squish) -> None:
    told = json.loads(squish(*GERMANY, "--json", "--system", "You are a pirate who answers at length.").stdout)
    assert told["usage"]["prompt_tokens"] != 37, "as many as without it"


def test_wrong_input_names_the_field_and_shows_no_traceback(squish: Squish) -> None:
    cases = [
        ((*GERMANY, "--temperature", "9"), 2, "temperature"),
        (("run", MODEL, "Who", "are you?"), 2, f"squish run {MODEL} --prompt 'Who are you?'"),
        ((*GERMANY, "--top-p", "2"), 2, "top_p"),
        ((*GERMANY, "--max-tokens", "0"), 2, "max_tokens"),
        ((*GERMANY, "--repetition-penalty", "0"), 2, "repetition_penalty"),
        ((*GERMANY, "--preset", "loud"), 2, "balanced, precise, creative, greedy"),
        ((*GERMANY, "--var", "a=1"), 2, "--preset NAME"),
        ((*GERMANY, "--preset", "greedy", "--var", "a=1"), 2, "No variable is named a"),
        ((*GERMANY, "--format", "no.schema.json"), 2, "no.schema.json"),
        (("run", MODEL, "--prompt", "  "), 2, "prompt"),
        (("run", "smollm2:136m", "--prompt", "hi"), 3, "smollm2:135m"),
        (("run", "a//b", "--prompt", "hi"), 2, "a//b"),
        ((*GERMANY, "--max-tokens", "99999999999999999999"), 2, "max_tokens"),
        ((*GERMANY, "--top-k", "99999999999999999999"), 2, "top_k"),
        (("run", MODEL), 2, "prompt"),
    ]
    for arguments, code, word in cases:
        done = squish(*arguments)
        assert (done.returncode, done.stdout) == (code, ""), arguments
        assert word in done.stderr
        assert "Traceback" not in done.stderr


def test_a_prompt_longer_than_the_context_is_refused_with_numbers(squish: Squish) -> None:
    done = squish("run", MODEL, stdin="word " * 9000)
    assert done.returncode == 2
    assert "8192" in done.stderr


def test_ctrl_c_exits_130(tireless: dict[str, str]) -> None:
    with start_answer(tireless) as process:
        process.send_signal(signal.SIGINT)
        _, talk = process.communicate()
    assert process.returncode == 130
    assert "Traceback" not in talk


def test_a_closed_pipe_is_quiet(tireless: dict[str, str]) -> None:
    with start_answer(tireless) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait() == 141
        assert process.stderr is not None
        talk = process.stderr.read()
    assert "Traceback" not in talk
    assert "pipe" not in talk.lower()


@contextmanager
def start_answer(environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A long answer of which the first word has arrived."""
    process = subprocess.Popen(
        [*ENDLESS, "--prompt", "Count to one thousand."],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    with process:
        try:
            assert process.stdout is not None
            assert process.stdout.read(1)
            yield process
        finally:
            process.kill()


def test_the_repl_remembers_clears_and_stops(tireless: dict[str, str], tmp_path: Path) -> None:
    with Terminal([*ENDLESS], tireless, tmp_path) as terminal:
        terminal.expect(">>> ")
        terminal.type("What is the capital of Germany?\r")
        terminal.expect("Berlin.")
        terminal.type("\x03")
        terminal.expect("TTFT")
        terminal.expect("stopped")
        terminal.expect(">>> ")
        terminal.type("/clear\r")
        terminal.expect("forgotten")
        terminal.type("/system Answer in French.\r")
        terminal.expect("is set")
        terminal.type("/help\r")
        terminal.expect("/exit")
        terminal.type("/nonsense\r")
        terminal.expect("not a command")
        terminal.expect(">>> ")
        terminal.type("Tell a story.\r")
        terminal.expect("story.")
        terminal.expect("\n")
        terminal.expect("e")  # of the first words of the answer
        terminal.type("\x03")
        terminal.expect("stopped")
        terminal.expect(">>> ")
        terminal.type("\x04")
        assert terminal.wait() == 0


_NO_READLINE = "import sys; sys.modules['readline'] = None; import squish.cli; squish.cli.main()"


def test_what_is_typed_while_an_answer_comes_is_there_at_the_next_prompt(
    tireless: dict[str, str], tmp_path: Path
) -> None:
    with Terminal([*ENDLESS], tireless, tmp_path) as terminal:
        terminal.expect(">>> ")
        terminal.type("What is the capital of Germany?\r")
        terminal.expect("Berlin.")
        terminal.type("/hel")  # not shown in the middle of the answer
        terminal.type("\x03")
        terminal.expect("stopped")
        terminal.expect(">>> ")
        terminal.expect("/hel")
        terminal.type("p\r")
        terminal.expect("/exit ")
        terminal.expect(">>> ")  # a terminal that waits for a whole line makes another character of ctrl-d
        terminal.type("\x04")
        assert terminal.wait() == 0


@pytest.mark.parametrize("editing", ["readline", pytest.param("none", marks=pytest.mark.long)])
def test_a_paste_of_several_lines_is_one_message(
    editing: str, environment: dict[str, str], tmp_path: Path, squish: Squish
) -> None:
    own = [str(SQUISH)] if editing == "readline" else [sys.executable, "-c", _NO_READLINE]
    lines = ["/etc is a folder", "\tred \x1b[31mrain", "third"] if editing == "readline" else ["one", "two", "three"]
    pasted = "\n".join(lines)
    with Terminal([*own, "run", MODEL, "--save", "--max-tokens", "8"], environment, tmp_path) as terminal:
        terminal.expect(">>> ")
        terminal.type(f"\x1b[200~{pasted}\x1b[201~\r" if editing == "readline" else f"{pasted}\n")
        terminal.expect("TTFT")
        terminal.expect(">>> ")
        terminal.type("\x04")
        assert terminal.wait() == 0
    latest = str(json.loads(squish("chats", "list", "--json").stdout)[0]["id"])
    shown = squish("chats", "show", latest)
    assert shown.returncode == 0
    assert "\n".join(line.replace("\x1b[31m", "") for line in lines) in shown.stdout


class Terminal:
    """A program on a pseudo-terminal. It is killed at the end of the `with` block, if it has not ended."""

    def __init__(self, command: list[str], environment: dict[str, str], cwd: Path) -> None:
        self._own, theirs = pty.openpty()
        self._process = subprocess.Popen(
            command,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=environment | {"TERM": "xterm-256color"},
            cwd=cwd,
            start_new_session=True,
            preexec_fn=lambda: __import__("fcntl").ioctl(0, __import__("termios").TIOCSCTTY, 0),
        )
        os.close(theirs)
        self._unread = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._own)

    def type(self, keys: str) -> None:
        os.write(self._own, keys.encode())

    def expect(self, text: str) -> None:
        """Read on until the text has come; the test's timeout is the limit."""
        while text not in self._unread:
            self._unread += os.read(self._own, 4096).decode(errors="replace")
        self._unread = self._unread.partition(text)[2]

    def read(self) -> str:
        """All that comes until the program ends."""
        read = bytearray()
        try:
            while piece := os.read(self._own, 4096):
                read += piece
        except OSError:  # the other end is closed
            pass
        return read.decode(errors="replace")

    def wait(self) -> int:
        self.read()
        return self._process.wait()


def test_closed_and_full_streams_are_no_reason_for_a_traceback(environment: dict[str, str]) -> None:
    def shell(redirect: str) -> subprocess.CompletedProcess[str]:
        command = f"{SQUISH} list {redirect}"
        return subprocess.run(["sh", "-c", command], env=environment, capture_output=True, text=True, check=False)

    assert shell(">&-").returncode == 0
    assert shell("2>&-").stdout.startswith("NAME")
    assert shell("<&-").returncode == 0
    full = shell(">/dev/full")
    assert full.returncode == 1
    assert "full" in full.stderr
    assert "Something unexpected" not in full.stderr


@pytest.mark.parametrize("turns", range(1, 10))
async def test_ctrl_c_while_the_worker_is_being_started_leaves_nothing_to_wait_for(
    real_settings: Settings, turns: int
) -> None:
    """A start that is cut short by the end of the loop is waited for in vain."""
    before = psutil.Process().children()
    opening = asyncio.create_task(open_model(real_settings, MODEL))
    for _ in range(turns):
        await asyncio.sleep(0)
    opening.cancel()
    await asyncio.wait([opening])
    assert opening.cancelled()
    assert {each.get_name() for each in asyncio.all_tasks() - {asyncio.current_task()}} == set()
    assert psutil.Process().children() == before
