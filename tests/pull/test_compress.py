"""Compressing while pulling: what is on disk and in memory meanwhile, what a kill costs, and what comes out."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten
from mlx_lm.utils import _get_classes, quantize_model

from squish import figures
from squish.commands.models.describe import describe, lines
from squish.commands.models.pull_output import as_talk
from squish.config.settings import Settings
from squish.errors import CorruptModel, HubUnreachable, InvalidInput, UnsupportedModel
from squish.ipc.jobs import Jobs
from squish.models.manifest import Loss
from squish.models.recipes import CHOICES, CompressionOptions, from_tag, recipe, tag, warning
from squish.models.store import Store
from squish.pull.events import Notice, Progress, Pulled, PullEvent
from squish.pull.pull import pull
from tests.conftest import SQUISH, clean_environment, share_compiled
from tests.local_hub import GOOD_TOKEN, TOKENIZER, Fault, LocalHub
from tests.pull.shards import byte_tokenizer, full_precision, in_shards, tiny_gptj, tiny_llama, tiny_mixtral
from tests.pull.test_pull import QUICK, until

REPO = "org/full"
FILES = {"tokenizer.json": TOKENIZER, "tokenizer_config.json": b"{}"}


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def hub() -> Iterator[LocalHub]:
    with LocalHub() as hub:
        yield hub


class Puller:
    """A user with a store, whose pulls are watched."""

    def __init__(self, home: Path, endpoint: str) -> None:
        self.settings = Settings(home=home, cache_dir=home / "models", hub_endpoint=endpoint, hf_token=GOOD_TOKEN)
        share_compiled(self.settings.worker_cache)
        self.store = Store(self.settings.cache_dir)

    def events(self, name: str, compression: CompressionOptions | None = None, **options: Any) -> list[PullEvent]:
        async def collect() -> list[PullEvent]:
            found = []
            async with pull(
                name, settings=self.settings, store=self.store, compression=compression, policy=QUICK, **options
            ) as events:
                async for event in events:
                    found.append(event)
            return found

        return asyncio.run(collect())

    def pull(self, name: str, compression: CompressionOptions | None = None, **options: Any) -> Pulled:
        last = self.events(name, compression, **options)[-1]
        assert isinstance(last, Pulled)
        return last


@pytest.fixture
def user(tmp_path: Path, hub: LocalHub) -> Puller:
    return Puller(tmp_path / "home", hub.url)


def bits(text: str, group_size: int | None = None, *, search: bool = False, **options: Any) -> CompressionOptions:
    return CompressionOptions(recipe(text, group_size, search), explicit=True, **options)


def config_of(pulled: Pulled) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((pulled.installed.path / "config.json").read_text())
    return found


def bits_of_tensors(pulled: Pulled) -> float:
    """Bits a weight: the bytes of all tensors, scales and norms too, by how many numbers the original has."""
    files: list[Any] = [mx.load(str(path)) for path in pulled.installed.path.glob("*.safetensors")]
    return 8 * sum(each.nbytes for tensors in files for each in tensors.values()) / pulled.installed.manifest.parameters


def as_mlx_lm_does(weights: dict[str, mx.array], config: dict[str, Any], size: int, group: int) -> dict[str, mx.array]:
    """What mlx-lm's own conversion of the whole model gives."""
    model_class, arguments = _get_classes(config)
    model = model_class(arguments.from_dict(config))
    model.load_weights(list(model.sanitize(dict(weights)).items()))
    return dict(tree_flatten(quantize_model(model, config, group, size)[0].parameters()))


@pytest.mark.parametrize("make", [tiny_llama, pytest.param(tiny_mixtral, marks=pytest.mark.long)])
def test_the_result_is_that_of_mlx_lm_wherever_the_shards_are_cut(
    make: Any, user: Puller, hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, shards, workers = Jobs.run, set[int](), set[int | None]()

    async def watched(jobs: Jobs, *of: Any) -> Any:
        shards.add(len([*user.settings.cache_dir.glob(".partial/*/files/model-*.safetensors")]))
        result = await run(jobs, *of)
        workers.add(jobs.pid)
        return result

    monkeypatch.setattr(Jobs, "run", watched)
    weights, config = make()
    hub.add_repo(REPO, in_shards(weights, config, tmp_path, 5) | FILES)
    pulled = user.pull(REPO)
    assert 0 < max(shards) <= 4, "full precision is never all on disk"
    assert len(workers) == 1, "the worker of the first shard compresses the others, and judges the model"
    found: dict[str, mx.array] = {}
    for path in pulled.installed.path.glob("*.safetensors"):
        found |= mx.load(str(path))  # type: ignore[operator, arg-type]
    expected = as_mlx_lm_does(weights, config, 4, 64)
    assert found.keys() == expected.keys()
    assert all(mx.array_equal(found[name], expected[name]).item() for name in expected)
    assert pulled.installed.manifest.quantization == "4-bit (group 64)"
    user.store.verify(REPO)
    assert not [path for path in (user.settings.cache_dir / ".partial").rglob("*") if path.is_file()]


@pytest.mark.long
def test_a_name_says_how_the_model_was_compressed(user: Puller, hub: LocalHub, tmp_path: Path) -> None:
    hub.add_repo(REPO, in_shards(*tiny_llama(), tmp_path, 2) | FILES)
    assert user.pull(f"{REPO}:8bit").installed.manifest.quantization == "8-bit (group 64)"
    assert user.pull(REPO, bits("mxfp4")).installed.manifest.id == f"{REPO}:mxfp4"
    assert user.pull(REPO, bits("none")).installed.manifest.quantization == "f32"
    assert {manifest.id for manifest in user.store.list()} == {f"{REPO}:8bit", f"{REPO}:mxfp4", f"{REPO}:full"}


@pytest.mark.parametrize("named", [True, pytest.param(False, marks=pytest.mark.long)], ids=["name", "options"])
def test_layers_may_differ_in_bits(named: bool, user: Puller, hub: LocalHub, tmp_path: Path) -> None:
    hub.add_repo(REPO, in_shards(*tiny_llama(), tmp_path, 1) | FILES)
    id = f"{REPO}:mixed_4_6-g32"
    mixed = user.pull(id) if named else user.pull(REPO, bits("mixed_4_6", 32))
    assert mixed.installed.manifest.id == id
    assert mixed.installed.manifest.quantization == f"{bits_of_tensors(mixed):.1f} bits a weight, mixed (group 32)"
    quantization = config_of(mixed)["quantization"]
    assert quantization["model.layers.0.self_attn.q_proj"]["bits"] == 4
    assert 6 in {each["bits"] for each in quantization.values() if isinstance(each, dict)}


@pytest.mark.long
def test_few_bits_are_warned_of_where_they_cost_much(user: Puller, hub: LocalHub, tmp_path: Path) -> None:
    hub.add_repo(REPO, in_shards(*tiny_llama(), tmp_path, 2) | FILES)
    for text, warns in (("4", True), ("8", False)):
        found = [event.text for event in user.events(REPO, bits(text)) if isinstance(event, Notice)]
        assert any("perplexity" in text for text in found) == warns
    size = user.store.list()[0].parameters
    cases = [("4", size, True), ("5", size, True), ("mxfp4", size, True), ("6", size, False), ("8", size, False)]
    for text, parameters, warns in [*cases, ("4", 400_000_000, True), ("4", 8_000_000_000, False)]:
        made = recipe(text)
        assert made is not None and bool(warning(made, parameters, REPO)) == warns


def test_another_compression_under_the_same_name_is_refused(user: Puller, hub: LocalHub, tmp_path: Path) -> None:
    hub.add_repo(REPO, in_shards(*tiny_llama(), tmp_path, 1) | FILES)
    manifest = user.pull(REPO, bits("8"), as_name="mine").installed.manifest
    assert manifest.pull_command == f"squish pull --force {REPO}:8bit --name mine"
    assert not user.pull(REPO, bits("8"), as_name="mine").fresh
    assert not user.pull(REPO, as_name="mine").fresh
    with pytest.raises(InvalidInput, match=r"mine is installed as 8-bit \(group 64\)") as refused:
        user.pull(REPO, bits("4"), as_name="mine")
    assert "--force" in (refused.value.hint or "")
    with pytest.raises(InvalidInput, match=f"mine is installed from hub:{REPO}"):
        user.pull("org/other", as_name="mine")
    assert user.pull(f"{REPO}:8bit", as_name="mine", force=True).installed.manifest == user.store.find("mine").manifest


@pytest.mark.parametrize("option", ["measure", "keep_source"])
def test_options_about_compressing_need_something_to_compress(user: Puller, tmp_path: Path, option: str) -> None:
    chosen: Any = {option: True}
    for wanted in (bits("none", **chosen), CompressionOptions(None, explicit=True, **chosen)):
        with pytest.raises(InvalidInput, match="compresses nothing"):
            user.pull(REPO, wanted)
    (tmp_path / "x.gguf").touch()
    with pytest.raises(InvalidInput, match="compressed already"):
        user.pull(str(tmp_path / "x.gguf"), CompressionOptions(**chosen))


def test_groups_that_are_too_large_are_told_or_refused(user: Puller, hub: LocalHub, tmp_path: Path) -> None:
    hub.add_repo(REPO, in_shards(*tiny_llama(), tmp_path, 1) | FILES)  # one layer is 128 wide, the others 64
    partly = user.pull(REPO, bits("4", 128))
    assert partly.installed.manifest.quantization == f"{bits_of_tensors(partly):.1f} bits a weight, mixed (group 128)"
    hub.add_repo("org/narrow", in_shards(*tiny_llama(intermediate_size=64), tmp_path, 1) | FILES)
    with pytest.raises(UnsupportedModel, match="a width that is a multiple of 128"):
        user.pull("org/narrow", bits("4", 128))


def test_every_recipe_has_a_tag_that_means_it() -> None:
    for name in CHOICES:
        for group in (None, 32):
            if group and name in ("mxfp4", "nvfp4", "mxfp8", "fit", "none"):
                continue
            found = from_tag(tag(recipe(name, group)))
            assert found is not None and found.recipe == recipe(name, group)
    assert from_tag("Q8_0") is from_tag("9bit") is from_tag(None) is None
    for wrong in (("9", None), ("4", 48), ("mxfp4", 64), ("many", None), ("none", 32), ("", None)):
        with pytest.raises(InvalidInput):
            recipe(*wrong)


@pytest.mark.long
def test_the_original_can_be_kept_and_both_are_measured(user: Puller, hub: LocalHub, tmp_path: Path) -> None:
    hub.add_repo(REPO, in_shards(*tiny_llama(vocab_size=2048), tmp_path, 3) | byte_tokenizer())
    events = user.events(REPO, bits("3", keep_source=True, measure=True))
    last = events[-1]
    assert isinstance(last, Pulled) and last.compression is not None
    assert any(isinstance(event, Notice) and "3-bit" in event.text and "perplexity" in event.text for event in events)
    report = last.compression
    assert report.perplexity_before and report.perplexity_after and report.divergence
    loss = Loss(report.perplexity_before, report.perplexity_after, report.divergence)
    assert (
        user.store.find(f"{REPO}:3bit").manifest.loss == loss and user.store.find(f"{REPO}:full").manifest.loss is None
    )
    assert f"KL divergence {report.divergence:.3f}" in dict(lines(describe(user.store.find(f"{REPO}:3bit"))))["quality"]
    assert report.after < report.before / 4
    assert report.measure_memory and report.measure_memory > 4 * report.before
    assert report.kept_as == f"{REPO}:full"
    for id in (f"{REPO}:3bit", f"{REPO}:full"):
        user.store.verify(id)


@pytest.mark.long
def test_what_cannot_be_measured_is_installed_all_the_same(user: Puller, hub: LocalHub, tmp_path: Path) -> None:
    files = in_shards(*tiny_llama(vocab_size=128), tmp_path, 1)  # which has no embeddings of half of the tokens
    hub.add_repo(REPO, files | byte_tokenizer())
    events = user.events(REPO, bits("4", measure=True))
    last = events[-1]
    assert isinstance(last, Pulled) and last.compression is not None
    assert (last.compression.perplexity_before, last.compression.perplexity_after) == (None, None)
    notices = [event.text for event in events if isinstance(event, Notice)]
    assert len([each for each in notices if "tokens that this model does not have" in each]) == 2
    user.store.verify(last.installed.manifest.id)


def test_a_repository_that_changed_meanwhile_starts_over(user: Puller, hub: LocalHub, tmp_path: Path) -> None:
    shard = "model-00001-of-00001.safetensors"
    weights, config = tiny_llama()
    files = hub.add_repo(REPO, in_shards(weights, config, tmp_path, 1) | FILES).files
    rest = len(files[shard]) - 64 * 1024  # the header came with the first piece, and stays
    hub.fault(shard, Fault(), Fault(cut_after=rest - 1000), *[Fault(status=500)] * 3)
    with pytest.raises(HubUnreachable):
        user.pull(REPO)
    assert [*user.settings.cache_dir.glob(".partial/*/parts/*.part")]
    wider, config = tiny_llama(intermediate_size=192)
    hub.add_repo(REPO, in_shards(wider, config, tmp_path, 1) | FILES)
    user.store.verify(user.pull(REPO).installed.manifest.id)


def test_what_is_quantized_already_is_taken_as_it_is(user: Puller, hub: LocalHub, tmp_path: Path) -> None:
    weights, config = tiny_llama()
    made = as_mlx_lm_does(weights, config, 4, 64)
    packed = config | {"quantization": {"group_size": 64, "bits": 4}}
    files = in_shards(made, packed, tmp_path, 1) | FILES
    hub.add_repo(REPO, files)
    with pytest.raises(InvalidInput, match="already quantized"):
        user.pull(REPO, bits("8"))
    pulled = user.pull(REPO)
    assert pulled.compression is None
    assert (pulled.installed.path / "model-00001-of-00001.safetensors").read_bytes() == files[
        "model-00001-of-00001.safetensors"
    ]


def test_what_cannot_be_run_is_refused_before_its_weights_are_sent(user: Puller, hub: LocalHub, tmp_path: Path) -> None:
    weights, config = tiny_llama()
    hub.add_repo(REPO, in_shards(weights, config | {"model_type": "made_up"}, tmp_path, 2) | FILES)
    with pytest.raises(UnsupportedModel, match="'made_up' of org/full"):
        user.pull(REPO)
    assert {each.file for each in hub.requests if each.sent and "/api/" not in each.path} == {
        "config.json", "tokenizer_config.json"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("config", "tokenizer", "said"),
    [
        ({"model_file": "mine.py"}, {}, "mine.py"),
        ({"model_type": "made_up", "auto_map": {"AutoModel": "m.M"}}, {}, "'made_up'.*code of its own"),
        ({}, {"auto_map": {"AutoTokenizer": ["t.T", None]}}, "tokenizer .* code of its own"),
    ],
)
def test_what_needs_code_of_its_own_is_refused_before_its_weights_are_sent(
    user: Puller, hub: LocalHub, tmp_path: Path, config: Any, tokenizer: Any, said: str
) -> None:
    weights, usual = tiny_llama()
    files = in_shards(weights, usual | config, tmp_path, 2)
    hub.add_repo(REPO, files | {"tokenizer_config.json": json.dumps(tokenizer).encode(), "tiktoken.model": b"x"})
    with pytest.raises(UnsupportedModel, match=said):
        user.pull(REPO)
    sent = {each.file for each in hub.requests if each.sent and "/api/" not in each.path}
    assert sent == {"config.json", "tokenizer_config.json"}
    (tmp_path / "local").mkdir()
    for name, content in (hub.repos[REPO].files | {"tokenizer.json": b"{}"}).items():
        (tmp_path / "local" / name).write_bytes(content)
    if config:
        with pytest.raises(UnsupportedModel):
            user.pull(str(tmp_path / "local"))


def test_weights_that_do_not_fit_the_config_are_refused(user: Puller, hub: LocalHub, tmp_path: Path) -> None:
    weights, config = tiny_llama()
    del weights["model.norm.weight"]
    hub.add_repo(REPO, in_shards(weights, config, tmp_path, 2) | FILES)
    with pytest.raises(CorruptModel, match=r"model\.norm\.weight"):
        user.pull(REPO)
    hub.add_repo("org/lie", {"config.json": json.dumps(config).encode(), "model.safetensors": b"\x10" * 100})
    for content in (b"\x10" * 100, b""):
        hub.add_repo("org/lie", {"config.json": json.dumps(config).encode(), "model.safetensors": content} | FILES)
        with pytest.raises(CorruptModel, match="is not a safetensors file"):
            user.pull("org/lie")


@pytest.fixture(scope="session")
def real_shards(real_home: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The real model with full precision: 270 MB in four shards."""
    return full_precision(real_home / ".squish/models/smollm2+135m", tmp_path_factory.mktemp("shards"), 4)


# In each round the server falls silent in the middle of the shards that are on their way: shard → bytes by then.
ROUNDS = ({0: 40_000_000, 1: 10_000_000}, {2: 20_000_000, 3: 5_000_000}, {3: 45_000_000})


def test_a_pull_that_is_killed_goes_on_where_it_was(hub: LocalHub, tmp_path: Path) -> None:
    wide = {"hidden_size": 512, "intermediate_size": 2048, "num_attention_heads": 8, "num_key_value_heads": 8}
    files = in_shards(*tiny_llama(**wide, num_hidden_layers=2), tmp_path, 4) | FILES  # 34 MB
    killed_and_run_again(files, hub, tmp_path, ({0: 6_000_000, 1: 3_000_000},))


@pytest.mark.long
@pytest.mark.parametrize("rounds", [ROUNDS[:1], ROUNDS], ids=len)
def test_a_pull_that_is_killed_ends_with_a_model_that_answers(
    real_shards: dict[str, bytes], hub: LocalHub, tmp_path: Path, rounds: tuple[dict[int, int], ...]
) -> None:
    environment, name, peak = killed_and_run_again(real_shards, hub, tmp_path, rounds)
    assert peak < 1.5 * max(map(len, real_shards.values())) + 300e6
    asked = [SQUISH, "run", name, "--prompt", "What is the capital of Germany?", "--temperature", "0"]
    answer = subprocess.run(asked, env=environment, capture_output=True, text=True, check=True)
    assert "Berlin" in answer.stdout


def killed_and_run_again(
    files: dict[str, bytes], hub: LocalHub, home: Path, rounds: tuple[dict[int, int], ...]
) -> tuple[dict[str, str], str, int]:
    """The environment and the name of the model that a pull installs after kills of the program, and its peak memory.

    Little was downloaded twice, and the model is whole.
    """
    hub.add_repo(REPO, files)
    shards = sorted(name for name in files if name.endswith(".safetensors"))
    environment = clean_environment(home) | {"HF_ENDPOINT": hub.url, "NO_PROXY": "127.0.0.1", "NO_COLOR": "1"}
    command = [SQUISH, "pull", REPO, "--group-size", "32", "--json"]
    parts = home / ".squish/models/.partial/org--full+4bit-g32/parts"
    for stops in rounds:
        hub.released = threading.Event()
        wanted = {parts / f"{shards[number]}.part": size for number, size in stops.items()}
        for part, size in wanted.items():
            if not (parts.parent / "headers" / f"{part.stem}.json").exists():
                hub.fault(part.stem, Fault())  # for the request of its header, which comes first
            hub.fault(part.stem, Fault(hold_after=size - (part.stat().st_size if part.exists() else 0)))
        with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, start_new_session=True) as child:
            for part, size in wanted.items():
                until(lambda part=part, size=size: part.exists() and part.stat().st_size >= size - 300_000)  # type: ignore[misc]
            os.kill(child.pid, signal.SIGKILL)
        hub.release()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    report = json.loads(done.stdout.splitlines()[-1])["compression"]
    total = sum(len(files[name]) for name in shards)
    again = sum(hub.sent(name) for name in shards) - total
    assert again < 0.05 * total, f"refetched {again / total:.2%}"
    assert report["largest_shard"] == max(len(files[name]) for name in shards)
    name = f"{REPO}:4bit-g32"
    subprocess.run([SQUISH, "verify", name], env=environment, check=True, stdout=subprocess.DEVNULL)
    peak: int = report["peak_memory"]
    return environment, name, peak


def test_progress_counts_to_the_end(user: Puller, hub: LocalHub, tmp_path: Path) -> None:
    hub.add_repo(REPO, in_shards(*tiny_llama(), tmp_path, 3) | FILES)
    seen = [event for event in user.events(REPO) if isinstance(event, Progress)]
    downloads = [event for event in seen if event.phase == "download"]
    assert [event.done for event in downloads] == sorted(event.done for event in downloads)
    last = [event for event in seen if event.phase == "compress"][-1]  # though the index was not downloaded
    assert last.done == last.total
    assert seen[-1].phase == "verify"


@pytest.mark.long
def test_what_is_downloaded_again_to_be_measured_is_said(user: Puller, hub: LocalHub, tmp_path: Path) -> None:
    files = hub.add_repo(REPO, in_shards(*tiny_llama(hidden_size=256), tmp_path, 3) | FILES).files
    shards = sorted(name for name in files if name.endswith(".safetensors"))
    hub.fault(shards[2], Fault(), *[Fault(status=500)] * 3)  # its header comes, and nothing else
    with pytest.raises(HubUnreachable):
        user.pull(REPO, bits("4"))
    before = sum(hub.sent(name) for name in shards[:2])
    events = user.events(REPO, bits("4", measure=True))
    again = sum(hub.sent(name) for name in shards[:2]) - before
    notices = [event.text for event in events if isinstance(event, Notice) and "downloaded again" in event.text]
    assert again > 0
    assert figures.size(again) in notices[0]
    first = next(event for event in events if isinstance(event, Progress) and event.phase == "download")
    assert first.done > 0, "what is there counts from the start"
    assert first.speed is None


@pytest.mark.long
def test_bits_that_rest_on_no_measurement_are_said(
    user: Puller, hub: LocalHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.add_repo(REPO, in_shards(*tiny_gptj(), tmp_path, 2) | byte_tokenizer())
    reason = "it calls its layers by keywords"
    last = user.pull(REPO, bits("4.5"))
    with as_talk() as show:
        show(last)
    said = " ".join(capsys.readouterr().err.split())
    assert f"the share of its squares that a matrix loses: {reason}. A plain recipe with --search is the better" in said
    assert reason in dict(lines(describe(user.store.find(f"{REPO}:4.5bpw"))))["bits"]


@pytest.mark.long  # test_mixture.py says where a worker that takes over goes on
@pytest.mark.parametrize("stops", [1, 2])
def test_a_calibrated_pull_that_is_stopped_goes_on(user: Puller, hub: LocalHub, tmp_path: Path, stops: int) -> None:
    """Leaving a pull, as Ctrl-C does, kills its worker with -9, wherever that is."""
    hub.add_repo(REPO, in_shards(*tiny_llama(vocab_size=2048), tmp_path, 2) | byte_tokenizer())
    options = CompressionOptions(recipe("5.5", calibrated=True), explicit=True, text="one two three four " * 60)

    async def stop_at(phases: tuple[str, ...]) -> bool:
        settings, store = user.settings, user.store
        async with pull(REPO, settings=settings, store=store, compression=options, policy=QUICK) as events:
            async for event in events:
                if isinstance(event, Progress) and event.phase in phases and event.done:
                    return True
        return False

    for phases in (("score", "compress"), ("compress",))[:stops]:
        if not asyncio.run(stop_at(phases)):
            break
        assert not user.store.list() and [*user.settings.cache_dir.glob(".partial/*/compression.json")]
    events = user.events(REPO, options)
    last = events[-1]
    assert isinstance(last, Pulled) and last.installed.manifest.id == f"{REPO}:5.5bpw-calibrated"
    model = user.store.find(last.installed.manifest.id)
    assert 4.5 < 8 * model.manifest.weights / model.manifest.parameters < 5.7
    assert not model.extra
    assert not [path for path in (user.settings.cache_dir / ".partial").rglob("*") if path.is_file()]
