"""The real model with a config.json of transformers 5 answers as it did before."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Squish = Callable[..., subprocess.CompletedProcess[str]]
QUESTION = ("--prompt", "What is the capital of Germany?", "--temperature", "0", "--max-tokens", "30")


@pytest.fixture
def copied(real_home: Path, tmp_path: Path) -> Path:
    (installed,) = (real_home / ".squish" / "models").glob("smollm2+135m")
    copy = tmp_path / "five"
    shutil.copytree(installed, copy)
    (copy / "manifest.toml").unlink()
    return copy


def change(directory: Path, **entries: object) -> None:
    path = directory / "config.json"
    config = json.loads(path.read_text())
    theta = config.pop("rope_theta")
    config |= {"rope_parameters": {"rope_theta": theta, "rope_type": "default"}} | entries
    path.write_text(json.dumps(config))


@pytest.mark.long  # test_transformers.py reads such entries of every architecture
def test_a_config_of_transformers_5_gives_the_same_answer(squish: Squish, copied: Path) -> None:
    change(copied)
    pulled = squish("pull", str(copied), "--name", "transformers-five")
    assert pulled.returncode == 0, pulled.stderr
    now = squish("run", "transformers-five", *QUESTION)
    assert now.stdout == "The capital of Germany is Berlin.\n"  # as before, which test_run.py tells
    squish("rm", "transformers-five")


def test_what_would_be_ignored_is_refused_when_it_is_pulled(squish: Squish, copied: Path) -> None:
    change(copied, logits_scaling=8.0)
    pulled = squish("pull", str(copied), "--name", "transformers-five")
    assert pulled.returncode != 0
    assert "sets logits_scaling to 8.0" in pulled.stderr
    assert "Traceback" not in pulled.stderr
