"""`--bits fit`, and what a kill of the whole program leaves of a calibrated pull."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from squish.commands.models.describe import describe, lines
from squish.errors import InvalidInput
from squish.memory import fit, machine
from squish.models.recipes import CompressionOptions, recipe
from squish.pull.events import Notice
from tests.conftest import SQUISH, clean_environment, share_compiled
from tests.local_hub import GOOD_TOKEN, LocalHub
from tests.pull.shards import byte_tokenizer, in_shards, tiny_llama
from tests.pull.test_compress import Puller

REPO = "org/full"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with LocalHub() as hub:
        yield hub


def as_large_as_fits(context: int | None = None) -> CompressionOptions:
    return CompressionOptions(recipe("fit"), explicit=True, context=context)


def on_a_small_machine(hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Puller, int, int]:
    """A user whose machine has room for 5 bits a weight and 2048 tokens; the model's weights, and the bytes there."""
    shape = {"hidden_size": 256, "intermediate_size": 1024, "num_attention_heads": 4, "num_key_value_heads": 4}
    weights, config = tiny_llama(**shape, num_hidden_layers=2)
    hub.add_repo(REPO, in_shards(weights, config, tmp_path, 2) | byte_tokenizer())
    parameters = sum(each.size for each in weights.values())
    small = fit.Machine("RAM", total=0, free=0, float32=True)
    needed = fit.estimate(fit.shape_of(config, parameters), parameters * 5 // 8, 2048, small).needed
    memory = fit.Machine("RAM", total=int(needed / 0.9), free=needed, float32=True)
    monkeypatch.setattr(machine, "read", lambda: memory)
    return Puller(tmp_path / "home", hub.url), parameters, memory.total


def test_fit_takes_the_most_bits_with_which_the_model_fits(
    hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    user, parameters, total = on_a_small_machine(hub, tmp_path, monkeypatch)
    notices = [event.text for event in user.events(REPO, as_large_as_fits()) if isinstance(event, Notice)]
    model = user.store.find(f"{REPO}:fit")
    said = re.search(r"([0-9.]+) bits a weight: the most that fits this machine with 2,048 tokens", notices[0])
    assert said and 4.5 < float(said[1]) < 5.5
    assert abs(8 * model.manifest.weights / parameters - float(said[1])) < 0.3
    assert describe(model).estimate.needed <= total
    assert model.manifest.unmeasured == "" and "bits" not in dict(lines(describe(model)))
    with pytest.raises(InvalidInput, match="with bits for the context that was asked for then"):
        user.pull(REPO, as_large_as_fits(64))
    with pytest.raises(InvalidInput, match="does not fit this machine with 2,000,000 tokens"):
        user.pull(REPO, as_large_as_fits(2_000_000), force=True)
    assert user.store.find(f"{REPO}:fit").manifest == model.manifest


@pytest.mark.long
def test_more_bits_fit_beside_a_smaller_cache(hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    user, _, total = on_a_small_machine(hub, tmp_path, monkeypatch)
    weights = user.pull(REPO, as_large_as_fits()).installed.manifest.weights
    user.pull(f"{REPO}:fit", CompressionOptions(context=64), force=True)
    assert user.store.find(f"{REPO}:fit").manifest.weights > weights
    user.settings = replace(user.settings, kv_bits="8")
    user.pull(REPO, as_large_as_fits(), force=True)
    beside_small_cache = user.store.find(f"{REPO}:fit")
    assert beside_small_cache.manifest.weights > weights
    assert describe(beside_small_cache, kv_bits=8).estimate.needed <= total


@pytest.mark.long
@pytest.mark.parametrize("phases", [("score", "compress"), ("compress",)], ids=len)
def test_a_calibrated_pull_that_is_killed_goes_on(hub: LocalHub, tmp_path: Path, phases: tuple[str, ...]) -> None:
    wide = {"hidden_size": 256, "intermediate_size": 1024, "num_attention_heads": 4, "num_hidden_layers": 6}
    files = in_shards(*tiny_llama(**wide), tmp_path, 3) | byte_tokenizer()
    hub.add_repo(REPO, files)
    text = tmp_path / "text"
    text.write_text("one two three four " * 200)
    share_compiled(tmp_path / ".squish/cache")
    environment = clean_environment(tmp_path) | {"HF_ENDPOINT": hub.url, "HF_TOKEN": GOOD_TOKEN}
    environment |= {"NO_PROXY": "127.0.0.1", "NO_COLOR": "1"}
    bits = ["--bits", "5.5"] if "score" in phases else []
    command = [SQUISH, "pull", REPO, *bits, "--calibrate", str(text), "--json"]
    for phase in phases:
        reached = False
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            for line in child.stdout:
                event = json.loads(line)
                # All matrices of a small model are done together, at the end of "compress".
                if event["event"] == "progress" and event["phase"] == phase and (event["done"] or phase == "compress"):
                    os.kill(child.pid, signal.SIGKILL)
                    reached = True
                    break
        assert reached
    kept = [*(tmp_path / ".squish/models/.partial").rglob("compression.json")]
    listed = subprocess.run([SQUISH, "list", "--json"], env=environment, capture_output=True, text=True, check=True)
    assert kept and json.loads(listed.stdout) == []
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    name = json.loads(done.stdout.splitlines()[-1])["id"]
    assert name == f"{REPO}:5.5bpw-calibrated" if bits else f"{REPO}:4bit-calibrated"
    shards = [each for each in files if each.endswith(".safetensors")]
    assert sum(hub.sent(each) for each in shards) < 1.05 * sum(len(files[each]) for each in shards)
    subprocess.run([SQUISH, "verify", name], env=environment, check=True, stdout=subprocess.DEVNULL)
    assert not [path for path in (tmp_path / ".squish/models/.partial").rglob("*") if path.is_file()]
