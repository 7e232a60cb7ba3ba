"""The commands about installed models, as a user meets them."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from subprocess import PIPE

import pytest

from squish.errors import InvalidInput, ModelInUse, ModelNotFound
from squish.models.store import Store
from squish.runtime import Runtime
from tests.conftest import MODEL, SQUISH, clean_environment
from tests.local_hub import Fault, LocalHub, tiny_model
from tests.worker.gguf.tiny import tiny_model as tiny_gguf
from tests.worker.gguf.writer import Q8_0

Squish = Callable[..., subprocess.CompletedProcess[str]]


async def test_a_model_in_use_is_removed_only_by_force(runtime: Runtime) -> None:
    runtime.store.copy(MODEL, "used:1b")
    await runtime.sessions.load("used:1b")
    elsewhere = Store(runtime.settings.cache_dir)
    with pytest.raises(ModelInUse, match="in use by another running Squish") as caught:
        elsewhere.remove("used:1b")
    assert "--force" in (caught.value.hint or "")
    assert elsewhere.remove("used:1b", force=True) >= 0
    with pytest.raises(ModelNotFound):
        elsewhere.find("used:1b")


async def test_a_model_that_was_unloaded_can_be_removed(runtime: Runtime) -> None:
    runtime.store.copy(MODEL, "idle:1b")
    await runtime.sessions.load("idle:1b")
    await runtime.sessions.unload("idle:1b")
    runtime.store.remove("idle:1b")


def test_a_copy_shares_its_files_and_frees_nothing_of_them(runtime: Runtime) -> None:
    original = runtime.store.find(MODEL)
    copied = runtime.store.copy(MODEL, "twin:1b")
    runtime.store.verify("twin:1b")
    for file in copied.manifest.files:
        assert (copied.path / file.path).samefile(original.path / file.path)
    with pytest.raises(InvalidInput, match="already installed"):
        runtime.store.copy(MODEL, "twin:1b")
    assert runtime.store.remove("twin:1b") < 100_000  # the manifest
    runtime.store.verify(MODEL)


def test_a_list_of_what_others_named_cannot_control_the_terminal(squish: Squish, tmp_path: Path) -> None:
    odd = tmp_path / ".squish" / "models" / "evil\x1b]0;title\x07+1b"
    odd.mkdir(parents=True)
    (odd / "manifest.toml").write_text('format = 1\nid = "evil\x1b[2Jname"\n')
    done = squish("list", HOME=str(tmp_path))
    assert "evil" in done.stdout + done.stderr
    assert not {"\x1b", "\x07"} & set(done.stdout + done.stderr)


def test_removing_a_link_says_that_its_target_stays(squish: Squish, runtime: Runtime, tmp_path: Path) -> None:
    installed = runtime.store.find(MODEL).path
    link = tmp_path / ".squish" / "models" / installed.name
    link.parent.mkdir(parents=True)
    link.symlink_to(shutil.copytree(installed, tmp_path / "elsewhere", copy_function=os.link))
    said = squish("rm", MODEL, HOME=str(tmp_path))
    assert said.returncode == 0, said.stderr
    assert f"Its files stay in {tmp_path / 'elsewhere'}." in said.stderr
    assert (tmp_path / "elsewhere").is_dir() and not link.is_symlink()


def test_show_says_what_is_known(squish: Squish) -> None:
    said = squish("show", MODEL).stdout
    for part in ("llama", "Q4_1", "apache-2.0", "8,192 tokens", "model.safetensors", "chat template", "fits", "cache"):
        assert part in said
    found = json.loads(squish("show", MODEL, "--json", "--context", "2048").stdout)
    assert found["fit"]["context"] == 2048
    assert found["fit"]["needed"] == sum(found["fit"][part] for part in ("weights", "cache", "overhead"))
    assert "im_start" in found["chat_template"]
    assert squish("show", "smolm2:135m").returncode == 3


def test_a_name_that_does_not_exist_gives_the_three_nearest(squish: Squish) -> None:
    for command in ("pull", "show", "rm"):
        done = squish(command, "llama3.1:9b")
        assert done.returncode == 3
        assert "llama3.1:8b" in done.stderr and done.stderr.count("llama3") >= 4


def test_a_directory_whose_path_reads_like_a_name_is_pointed_to(squish: Squish, tmp_path: Path) -> None:
    (tmp_path / "my-org" / "tiny").mkdir(parents=True)
    for name in ("my-org/tiny", "my-org"):
        assert f"To import {name} from this directory: squish pull ./{name}" in squish("pull", name).stderr
    for name in ("my-org/other", "./my-org"):
        assert "from this directory" not in squish("pull", name).stderr


def test_advice_about_a_missing_model_can_be_followed(squish: Squish, runtime: Runtime) -> None:
    runtime.store.copy(MODEL, "mine:1b")
    for command in ("show", "verify", "rm"):
        hint = squish(command, "mine:2b").stderr
        assert "Installed names like it: mine:1b." in hint and "pull mine" not in hint
        assert "squish pull" not in squish(command, "nope").stderr
    assert "squish pull" not in squish("cp", "nope", "x:1").stderr
    assert "Run: squish pull qwen3:8b" in squish("show", "qwen3:8b").stderr
    assert "Run: squish pull org/tiny:Q8_0" in squish("show", "org/tiny:Q8_0").stderr
    assert "squish pull" not in squish("rm", "org/tiny:Q8_0").stderr
    same = squish("cp", "mine:1b", "mine:1b")
    assert same.returncode == 2 and "squish rm" not in same.stderr
    runtime.store.remove("mine:1b")


def test_verify_names_the_damaged_file(squish: Squish, runtime: Runtime) -> None:
    copied = runtime.store.copy(MODEL, "hurt:1b")
    config = copied.path / "config.json"
    content = config.read_bytes()
    config.unlink()  # another file of this name: the original is shared
    config.write_bytes(content.replace(b"llama", b"lLama"))
    done = squish("verify")
    assert done.returncode == 1
    assert "hurt:1b  damaged" in done.stdout and f"{MODEL}  ok" in done.stdout and "config.json" in done.stderr
    runtime.store.remove("hurt:1b")
    assert squish("verify", MODEL).returncode == 0


def test_list_marks_what_is_damaged(squish: Squish, runtime: Runtime) -> None:
    for name in ("gone:1b", "short:1b"):
        runtime.store.copy(MODEL, name)
    (runtime.store.find("gone:1b").path / "model.safetensors").unlink()
    short = runtime.store.find("short:1b").path / "tokenizer.json"
    short.unlink()  # another file of this name: the original is shared
    short.write_bytes(b"{}")
    done = squish("list")
    rows = {row.split()[0]: row for row in done.stdout.splitlines()}
    assert "damaged" in rows["gone:1b"] and "damaged" in rows["short:1b"] and "damaged" not in rows[MODEL]
    again = f"squish pull --force {MODEL}"
    assert f"model.safetensors of gone:1b is missing or damaged. Run: {again} --name gone:1b" in done.stderr
    found = {each["id"]: each["damaged"] for each in json.loads(squish("list", "--json").stdout)}
    assert found[MODEL] is False and found["gone:1b"] is True
    for name in ("gone:1b", "short:1b"):
        runtime.store.remove(name)


def test_ctrl_c_says_how_to_go_on(environment: dict[str, str], tmp_path: Path) -> None:
    with LocalHub() as hub:
        hub.add_repo("org/tiny", tiny_model(4 * 2**20))
        hub.fault("model.safetensors", Fault(hold_after=3 * 2**20))
        variables = environment | {"HF_ENDPOINT": hub.url, "NO_PROXY": "127.0.0.1", "SQUISH_CACHE_DIR": str(tmp_path)}
        command = [SQUISH, "pull", "org/tiny", "--bits", "none", "--json"]
        with subprocess.Popen(command, env=variables, stdout=PIPE, stderr=PIPE, text=True) as child:
            assert child.stdout is not None and child.stderr is not None
            for line in child.stdout:
                if json.loads(line).get("done", 0) >= 2 * 2**20:
                    break
            child.send_signal(signal.SIGINT)
            child.stdout.read()
            said = child.stderr.read()
        assert child.returncode == 130
        assert re.fullmatch(r"Stopped at (5|6|7)\d %\. Run the same command to continue\.", said.strip())


def test_an_error_takes_the_place_of_the_progress_bar(environment: dict[str, str], tmp_path: Path) -> None:
    user, terminal = os.openpty()
    shown = b""
    with LocalHub() as hub:
        hub.add_repo("org/tiny", tiny_model(2**20))
        hub.fault("model.safetensors", *[Fault(corrupt=True)] * 2)
        variables = environment | {"HF_ENDPOINT": hub.url, "NO_PROXY": "127.0.0.1", "SQUISH_CACHE_DIR": str(tmp_path)}
        variables |= {"TERM": "xterm-256color"}
        command = [SQUISH, "pull", "org/tiny", "--bits", "none"]
        with subprocess.Popen(command, env=variables, stderr=terminal) as child:
            os.close(terminal)
            with suppress(OSError):  # what reading a terminal ends with that no program has open
                while piece := os.read(user, 4096):
                    shown += piece
    os.close(user)
    assert child.returncode == 1
    assert "▱" in shown.decode()
    assert b"\x1b[2Ksquish: model.safetensors arrived damaged" in shown


def test_prune_deletes_what_no_pull_is_writing(squish: Squish, tmp_path: Path) -> None:
    store = Store(tmp_path / "models")
    (store.partial("org/half") / "x.part").write_bytes(b"x" * 2_000_000)
    (store.partial("org/busy") / "x.part").write_bytes(b"x")
    with store.lock("org/busy"):
        done = squish("prune", SQUISH_CACHE_DIR=str(store.cache_dir))
    assert "org/half: 2.0 MB" in done.stderr
    assert [path.name for path in (store.cache_dir / ".partial").iterdir()] == ["org--busy"]


def test_a_text_that_is_too_short_to_calibrate_with_is_refused_before_anything_is_fetched(
    squish: Squish, tmp_path: Path
) -> None:
    short = tmp_path / "short.txt"
    short.write_text("word " * 31)
    for text, problem in ((short, "too short to calibrate with"), (tmp_path / "none", "cannot be read")):
        done = squish("pull", "org/full", "--calibrate", str(text))
        assert done.returncode == 2
        assert problem in done.stderr


def test_models_of_other_programs_are_listed_and_nothing_is_done(squish: Squish, tmp_path: Path) -> None:
    (folder := tmp_path / "cache" / "models--org--Some-GGUF" / "snapshots" / "1").mkdir(parents=True)
    model, _ = tiny_gguf(Q8_0)
    model.write(folder / "Some-Q8_0.gguf")
    (folder / "Some-Q4_K_M.gguf").write_bytes(b"GGUF")
    (folder / "mmproj-Some.gguf").write_bytes(b"GGUF")
    for arguments in ((), ("--from", "hf", "--dry-run"), ("org/some-gguf", "--dry-run")):
        done = squish("import", *arguments, HF_HUB_CACHE=str(tmp_path / "cache"))
        does = {line.split()[0]: " ".join(line.split()[4:]) for line in done.stdout.splitlines()[1:]}
        assert does["org/Some-GGUF:Q8_0"].removeprefix("kB ").startswith("imported")
        assert "not a usable GGUF file" in does["org/Some-GGUF:Q4_K_M"]
        assert "belongs to a model" in does["org/Some-GGUF:mmproj-Some"]
    assert squish("import", "nothing:1b", HF_HUB_CACHE=str(tmp_path / "cache")).returncode == 3
    file = squish("import", str(tmp_path), HF_HUB_CACHE=str(tmp_path / "cache"))
    assert (file.returncode, f"squish pull {tmp_path}" in file.stderr) == (3, True)
    assert "No models of Ollama" in squish("import", "--from", "ollama", OLLAMA_MODELS=str(tmp_path)).stderr


def test_the_catalog_is_listed(squish: Squish) -> None:
    rows = squish("catalog").stdout.splitlines()
    assert len(rows) > 60 and "REPOSITORY" in rows[0]
    only = json.loads(squish("catalog", "gemma3", "--json").stdout)
    assert only and all("gemma" in entry["id"] for entry in only)
    assert "Names like it" in squish("catalog", "gema3").stderr


def test_a_recipe_that_does_not_exist_is_refused(squish: Squish) -> None:
    done = squish("pull", "org/repo", "--bits", "q4")
    assert done.returncode == 2 and "mxfp4" in done.stderr
    assert "--bits has no value" in squish("pull", "org/repo", "--bits", "").stderr
    assert "--force pulls it again" in squish("pull", MODEL).stderr
    done = squish("pull", MODEL, "--bits", "8", "--force")
    assert (done.returncode != 0 and "--bits" in done.stderr) or "Hub" in done.stderr


@pytest.fixture
def alone(forked: Squish, tmp_path: Path) -> Squish:
    """Runs the program in a home of its own, where a test may install models."""
    environment = clean_environment(tmp_path / "home")
    return lambda *arguments: forked(arguments, environment, tmp_path)


def test_a_model_without_a_chat_template_continues_text(alone: Squish, tmp_path: Path) -> None:
    base, _ = tiny_gguf(Q8_0)
    done = alone("pull", str(base.write(tmp_path / "base.gguf")))
    assert "squish run" not in done.stderr, "which would be refused"
    assert ["base", "completion"] in [line.split()[:2] for line in alone("list").stdout.splitlines()]
    kinds = {each["id"]: each["kind"] for each in json.loads(alone("list", "--json").stdout)}
    assert kinds["base"] == "completion"
    shown = alone("show", "base").stdout
    assert "completion model: it continues text and does not chat" in shown
    assert "it continues text and does not chat" in alone("run", "base", "--prompt", "Hi").stderr


def test_all_chat_templates_of_a_model_are_shown(alone: Squish, tmp_path: Path) -> None:
    several, _ = tiny_gguf(Q8_0)
    templates = {"": "{{ messages }}", ".tool_use": "{{ tools }}", ".rag": "{{ documents }}"}
    several.metadata.update({f"tokenizer.chat_template{name}": text for name, text in templates.items()})
    several.metadata["tokenizer.chat_templates"] = ["tool_use", "rag"]
    alone("pull", str(several.write(tmp_path / "several.gguf")))
    assert ["several", "chat"] in [line.split()[:2] for line in alone("list").stdout.splitlines()]
    shown = alone("show", "several").stdout.splitlines()
    assert "chat template 14 characters (default), tool_use, rag" in [" ".join(line.split()) for line in shown]
    found = json.loads(alone("show", "several", "--json").stdout)
    assert found["chat_template"] == "{{ messages }}"
    assert found["chat_templates"] == {"default": "{{ messages }}", "tool_use": "{{ tools }}", "rag": "{{ documents }}"}
