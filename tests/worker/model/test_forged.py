"""What decides how memory is read never comes from a model's file."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import cast

import mlx.core as mx
import pytest

from tests.conftest import share_compiled
from tests.worker.model.test_load import write_model

Squish = Callable[..., subprocess.CompletedProcess[str]]

# How packed matrices once began, and then numbers that fit no matrix: rows, columns, bits, group.
HEADER = [0x7FA9C15D, 0xFFB3E827, 0x7F9D60F1, 0xFFD24A8B, 2**31 - 1, 2**30, 8, 1] + [0] * 8

PROGRAM = """
import sys
from pathlib import Path
from squish.worker.cpu.install import install, prepare, prepare_model
cache = Path(sys.argv[1])
engine = install(prepare(cache), cache)
import mlx.core as mx
import pytest
from squish.worker.model.load import load
from squish.worker.tokenizer.facts import Shelf
for path in sys.argv[2:]:
    loaded = load(Path(path), shelf=Shelf(cache / "tokenizers"))
    prepare_model(loaded.model)
    logits = loaded.model(mx.array([[5, 6, 7]]))
    mx.eval(logits)
    print(logits.shape, bool(mx.isfinite(logits[..., 1:]).all()), mx.argmax(logits[0, -1, 1:]).item())
"""


def forge(path: Path) -> None:
    """An ordinary model whose embedding begins as packed matrices once did."""
    write_model(path, tie_word_embeddings=True)
    file = str(path / "model.safetensors")
    weights = {name: each.astype(mx.float32) for name, each in cast(dict[str, mx.array], mx.load(file)).items()}
    table = weights["model.embed_tokens.weight"]
    first = mx.concatenate([mx.array(HEADER, mx.uint32).view(mx.float32), table[0, len(HEADER) :]])
    weights["model.embed_tokens.weight"] = mx.concatenate([first[None], table[1:]])
    mx.eval(weights)
    mx.save_safetensors(file, weights, {"format": "mlx"})


def test_weights_that_begin_with_the_header_of_packed_ones_are_weights(tmp_path: Path, real_home: Path) -> None:
    write_model(tmp_path / "plain", tie_word_embeddings=True)
    forge(tmp_path / "forged")
    paths = (real_home / ".squish" / "cache", tmp_path / "plain", tmp_path / "forged")
    done = subprocess.run([sys.executable, "-c", PROGRAM, *paths], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    plain, forged = done.stdout.splitlines()
    assert plain == forged
    assert plain.startswith("(1, 3, 96) True")


@pytest.mark.long  # its weights are read as others are, above
def test_a_model_with_that_header_is_pulled_and_answers(tmp_path: Path, squish: Squish) -> None:
    forge(tmp_path / "forged")
    about = tmp_path / "forged" / "tokenizer_config.json"
    chats = {"chat_template": "{% for message in messages %}{{ message.content }}{% endfor %}"}
    about.write_text(json.dumps(json.loads(about.read_text()) | chats))
    home = tmp_path / "home"
    share_compiled(home / ".squish" / "cache")
    pulled = squish("pull", "./forged", "--name", "forged:1", HOME=str(home))
    assert pulled.returncode == 0, pulled.stderr
    asked = ("run", "forged:1", "--prompt", "w5 w6", "--max-tokens", "4", "--temperature", "0", "--json")
    answered = squish(*asked, HOME=str(home))
    assert answered.returncode == 0, answered.stderr
    assert json.loads(answered.stdout)["usage"]["completion_tokens"] == 4
