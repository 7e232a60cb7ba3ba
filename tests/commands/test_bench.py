"""`squish bench`: counted from usage, in alternating rounds, remembered."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from subprocess import DEVNULL

import pytest

from squish import figures as figures_of
from squish.bench.measure import AnswerTiming, Endpoint, Figure, ratio, rows
from squish.commands.bench import _json
from squish.models.speeds import Speed, remember, speeds
from squish.system.servers import servers
from tests.commands.test_serve import serving
from tests.conftest import MODEL, SQUISH

Squish = Callable[..., subprocess.CompletedProcess[str]]
SMALL = ("--rounds", "1", "--prompts", "128,100000", "--streams", "1,2", "--tokens", "8")

BY_CHANCE = 16
"""More words than two prompts of random words begin with in common: one in twelve a word; so many, never."""


@pytest.mark.long
def test_a_model_is_measured_and_its_speed_remembered(squish: Squish, real_home: Path) -> None:
    done = squish("bench", MODEL, *SMALL, "--json", SQUISH_KV_BITS="8")
    assert done.returncode == 0, done.stderr
    assert "Left out: prompts of 100000 tokens" in done.stderr
    [side] = json.loads(done.stdout)
    figures = {figure["name"]: figure for figure in side["figures"]}
    assert list(figures) == [
        "cold start, first token",
        "first token, 128 tokens",
        "first token, 128 tokens again",
        "decode, 1 stream",
        "decode, 2 streams",
        "decode, repeating its prompt",
        "peak memory",
        "bytes read per pass",
        "passes while decoding",
        "read while decoding",
        "memory, at most",
        "prefill, 128 tokens",
        "products, at most",
    ]
    engine = side["engine"]
    assert (engine["precision"], engine["kv_bits"]) == ("int8" if "int8" in engine["backend"] else "float32", 8)
    assert engine["kernel"] and engine["kernel"] in engine["backend"]
    assert "8-bit KV cache" in engine["backend"]
    assert all(value > 0 for figure in figures.values() for value in figure["values"])
    assert len(figures["decode, 1 stream"]["values"]) == 1
    assert figures["first token, 128 tokens"]["cached_tokens"] < BY_CHANCE
    assert figures["first token, 128 tokens again"]["cached_tokens"] > BY_CHANCE
    speed = speeds(real_home / ".squish")[MODEL]
    assert f"{figures_of.speed(speed.decode_tps)}, measured" in squish("show", MODEL).stdout
    assert speed.decode_tps == pytest.approx(figures["decode, 1 stream"]["median"], abs=0.01)


@pytest.mark.long
def test_another_server_is_measured_in_turn(
    squish: Squish, environment: dict[str, str], real_home: Path, tmp_path: Path
) -> None:
    with serving(environment | {"SQUISH_API_KEY": "theirs"}, tmp_path / "log") as (other, url):
        short = ("--rounds", "1", "--prompts", "64,100000", "--streams", "1", "--tokens", "8")
        done = squish("bench", MODEL, *short, "--compare", f"{url},{MODEL}", OPENAI_API_KEY="theirs")
        other.terminate()
    assert done.returncode == 0, done.stderr
    assert "Left out: prompts of 100000 tokens" in done.stderr
    assert MODEL in speeds(real_home / ".squish")
    *table, engine = done.stdout.splitlines()
    assert re.fullmatch(rf"{MODEL}: .*, (int8 products|numpy|mlx|system).*, \d+-bit KV cache", engine)
    head, *lines = [re.split(r"  +", line) for line in table]
    assert head == ["MEASURED"] + [MODEL, "SPREAD", "CACHED", "GUESSED"] * 2 + ["TIMES BETTER"]
    memory = next(line for line in lines if line[0] == "peak memory")
    measured = lines[: lines.index(memory)]
    found = {name: (cells, float(ratio)) for name, *cells, ratio in measured}
    assert all(ratio > 0 for _, ratio in found.values())
    assert "decode, 1 stream" in found
    again = found["first token, 64 tokens again"][0]  # of each side, and at times how many tokens it guessed
    ours, theirs = (at for at, cell in enumerate(again) if cell.endswith(" s"))
    assert int(again[ours + 1]) >= 32
    assert int(again[theirs + 1]) >= 32
    cached = [cell for cell in found["first token, 64 tokens"][0] if cell.isdigit()]
    assert all(int(tokens) < BY_CHANCE for tokens in cached)
    assert [name for name, *_ in lines[-2:]] == ["prefill, 64 tokens", "products, at most"]


def test_a_killed_measurement_leaves_no_server(environment: dict[str, str], real_home: Path) -> None:
    home = real_home / ".squish"
    before = {server.pid for server in servers(home)}
    cannot_probe = environment | {"SQUISH_BLAS": "fast"}  # then its server is the first thing that it starts

    def own() -> set[int]:
        return {server.pid for server in servers(home)} - before

    with subprocess.Popen([SQUISH, "bench", MODEL], env=cannot_probe, stdout=DEVNULL, stderr=DEVNULL) as measuring:
        try:
            while not own():
                assert measuring.poll() is None
                time.sleep(0.05)
        finally:
            measuring.kill()
    while own():
        time.sleep(0.05)


def test_what_is_remembered_leaves_the_rest_alone(tmp_path: Path) -> None:
    (tmp_path / "state.toml").write_text('[window]\nmodel = "x"\n[speed.broken]\ndecode_tps = "fast"\n')
    speed = Speed(31.5, None, datetime(2026, 1, 1, tzinfo=UTC), "1.0")
    remember(tmp_path, MODEL, speed)
    remember(tmp_path, "other:1b", speed)
    assert speeds(tmp_path) == {MODEL: speed, "other:1b": speed}
    assert 'model = "x"' in (tmp_path / "state.toml").read_text()


def test_a_file_that_is_no_toml_is_forgotten(tmp_path: Path) -> None:
    (tmp_path / "state.toml").write_text("= broken")
    assert speeds(tmp_path) == {}


async def test_json_has_every_round() -> None:
    async with Endpoint("http://127.0.0.1:9/v1/", MODEL) as endpoint:
        answers = AnswerTiming(1.0, 2.0, 9, 4, 8, guessed=5), AnswerTiming(1.0, 2.0, 9, 3, 8)
        found = _json(endpoint, (Figure("decode, 2 streams", "tok/s", (1.00004, 3.0, 2.5), answers),), None)
    assert (found["model"], found["url"], found["engine"]) == (MODEL, "http://127.0.0.1:9", None)
    assert found["figures"] == [
        {
            "name": "decode, 2 streams", "unit": "tok/s", "median": 2.5, "values": [1.0, 3.0, 2.5],
            "cached_tokens": 7, "accepted_tokens": 5,
        }
    ]  # fmt: skip


def test_ratios_say_how_many_times_better_ours_is() -> None:
    assert ratio(Figure("x", "s", (1.0, 2.0, 3.0)), Figure("x", "s", (8.0,))) == 4.0
    assert ratio(Figure("x", "tok/s", (30.0,)), Figure("x", "tok/s", (10.0,))) == 3.0
    answer = AnswerTiming(1.0, 2.0, 9, 5, 10, guessed=9)
    [row] = rows([(Figure("x", "s", (1.0, 3.0)),), (Figure("x", "s", (4.0, 4.0), (answer,)),)])
    assert row == ("x", "2 s", "1–3", "", "", "4 s", "4–4", "5", "9", "2.00")
