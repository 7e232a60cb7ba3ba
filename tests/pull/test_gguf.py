"""Pulling GGUF files: what cannot be imported is refused before it is downloaded, what can answers in the end."""

from __future__ import annotations

import contextlib
import re
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from squish.errors import CorruptModel, InvalidInput, ModelNotFound, SquishError, UnsupportedModel
from squish.hub.snapshot import HubFile, Snapshot
from squish.ipc.jobs import Jobs
from squish.models.recipes import CompressionOptions, recipe
from squish.names import RepoName, parse
from squish.pull import beginning, counterpart
from squish.pull.events import Progress, Pulled, PullEvent
from squish.pull.install import install_gguf
from squish.pull.order import make_order
from squish.pull.repository import choose, shortest_tag, variants
from tests.local_hub import LocalHub
from tests.pull.test_compress import Puller
from tests.worker.gguf.tiny import tiny_model
from tests.worker.gguf.writer import Q8_0, Blob, Value, write_gguf

MIB = 1024 * 1024


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with LocalHub() as hub:
        yield hub


def test_an_architecture_that_is_not_imported_is_refused_by_name(hub: LocalHub, tmp_path: Path) -> None:
    head = write_gguf(tmp_path / "x.gguf", {"general.architecture": "made_up"}, {}).read_bytes()
    hub.add_repo("org/odd", {"odd-Q8_0.gguf": head + bytes(80 * MIB)})
    with pytest.raises(UnsupportedModel, match=r"odd-Q8_0\.gguf.*made_up"):
        Puller(tmp_path / "home", hub.url).pull("org/odd:Q8_0")
    assert hub.sent("odd-Q8_0.gguf") == beginning.FIRST


def large_gguf(path: Path, metadata: dict[str, Value] | None = None, changed: dict[str, Blob] | None = None) -> bytes:
    """A tiny llama with 3 MB of metadata, some of the file changed."""
    tiny, _ = tiny_model(Q8_0)
    tiny.metadata.update((metadata or {}) | {"general.description": "x" * 3 * MIB})
    tiny.tensors.update(changed or {})
    return tiny.write(path).read_bytes()


@pytest.mark.parametrize(
    ("metadata", "word"),
    [({"general.architecture": "made_up"}, "made_up"), ({"tokenizer.ggml.model": "rwkv"}, "rwkv"), ({}, "projector")],
)
def test_a_small_file_is_refused_by_its_first_piece_too(
    hub: LocalHub, tmp_path: Path, metadata: dict[str, Value], word: str
) -> None:
    first = {"general.type": "mmproj"} if word == "projector" else {}
    head = large_gguf(tmp_path / "x.gguf", metadata=metadata | first)
    hub.add_repo("org/odd", {"m.gguf": head})
    with pytest.raises(UnsupportedModel, match=word):
        Puller(tmp_path / "home", hub.url).pull("org/odd")
    assert hub.sent("m.gguf") == beginning.FIRST < len(head) // 40


@pytest.mark.parametrize(("version", "word"), [(1, "version 1"), (3 << 24, "big-endian")])
def test_the_first_piece_says_its_version(hub: LocalHub, tmp_path: Path, version: int, word: str) -> None:
    content = large_gguf(tmp_path / "x.gguf")
    hub.add_repo("org/odd", {"m.gguf": content[:4] + struct.pack("<I", version) + content[8:]})
    with pytest.raises(UnsupportedModel, match=word):
        Puller(tmp_path / "home", hub.url).pull("org/odd")
    assert hub.sent("m.gguf") == beginning.FIRST


def test_a_block_format_is_refused_before_the_weights(hub: LocalHub, tmp_path: Path) -> None:
    odd = Blob((64, 64), 99, bytes(30 * MIB))
    content = large_gguf(tmp_path / "x.gguf", changed={"blk.0.attn_q.weight": odd})
    hub.add_repo("org/odd", {"m.gguf": content})
    with pytest.raises(UnsupportedModel, match="format number 99"):
        Puller(tmp_path / "home", hub.url).pull("org/odd")
    pieces = [request.sent for request in hub.reads("m.gguf")]
    assert pieces == [beginning.FIRST, *(beginning.FIRST << step for step in range(6))], "each as large as all before"
    assert sum(pieces) == 4 * MIB < len(content) // 8


def test_the_header_of_an_accepted_file_is_downloaded_once(hub: LocalHub, tmp_path: Path) -> None:
    content = large_gguf(tmp_path / "x.gguf")
    hub.add_repo("org/fine", {"m.gguf": content})
    manifest = Puller(tmp_path / "home", hub.url).pull("org/fine").installed.manifest
    assert hub.sent("m.gguf") == len(content)
    assert len(hub.reads("m.gguf")) > 5, "the header came in pieces"
    assert manifest.architecture == "llama"


def test_of_a_file_whose_weights_are_damaged_on_the_hub_no_second_download_is_advised(
    hub: LocalHub, tmp_path: Path
) -> None:
    scale = struct.pack("<H", 0x7E00)  # not a number
    tiny, _ = tiny_model(Q8_0)
    name = "blk.0.attn_q.weight"
    blob = tiny.tensors[name]
    content = large_gguf(tmp_path / "x.gguf", changed={name: Blob(blob.shape, Q8_0, scale + blob.data[2:])})
    hub.add_repo("org/odd", {"m.gguf": content})
    user = Puller(tmp_path / "home", hub.url)
    with pytest.raises(CorruptModel, match=rf"{name} has numbers that are not finite") as refused:
        user.pull("org/odd")
    assert refused.value.hint == "The file in org/odd is damaged: take another one."
    assert not [*user.settings.cache_dir.glob(".partial/*")]


def test_a_damaged_header_is_refused_before_the_weights(hub: LocalHub, tmp_path: Path) -> None:
    content = large_gguf(tmp_path / "x.gguf")
    hub.add_repo("org/odd", {"m.gguf": content[:16] + b"\xff" * 8 + content[24:]})
    user = Puller(tmp_path / "home", hub.url)
    with pytest.raises(CorruptModel, match=r"m\.gguf.*it claims") as refused:
        user.pull("org/odd")
    assert not [*user.settings.cache_dir.glob(".partial/*")]
    assert refused.value.hint is not None and "not downloaded" in refused.value.hint
    assert hub.sent("m.gguf") == beginning.FIRST


def test_a_variant_is_imported_as_it_is(hub: LocalHub, tmp_path: Path) -> None:
    content = tiny_model(Q8_0)[0].write(tmp_path / "x.gguf").read_bytes()
    hub.add_repo("org/files", {"m-Q4_1.gguf": content, "m-Q8_0.gguf": b"GGUF"})
    user = Puller(tmp_path / "home", hub.url)
    with pytest.raises(InvalidInput, match="already compressed"):
        user.pull("org/files:q4_1", CompressionOptions(recipe("8"), explicit=True))
    manifest = user.pull("org/files:Q4_1").installed.manifest
    assert (manifest.id, manifest.architecture) == ("org/files:Q4_1", "llama")
    assert hub.sent("m-Q8_0.gguf") == 0
    user.store.verify("org/files:Q4_1")


def snapshot(*names: str) -> Snapshot:
    return Snapshot("org/files", "c", None, tuple(HubFile(name, "", 9, None, None) for name in names))


def taken(names: tuple[str, ...], tag: str | None) -> list[str]:
    return [file.path for file in choose(snapshot(*names), tag)]


SPLIT = ("m-Q8_0-00001-of-00002.gguf", "m-Q8_0-00002-of-00002.gguf")


@pytest.mark.parametrize(
    ("names", "tag", "file"),
    [
        (("m-00001-of-00001.gguf",), None, "m-00001-of-00001.gguf"),
        (("m-Q8_0-00001-of-00001.gguf", "m-Q4_0.gguf"), "q8_0", "m-Q8_0-00001-of-00001.gguf"),
        (("m-f16.gguf", "mmproj-m-f16.gguf", "m.imatrix.gguf"), "f16", "m-f16.gguf"),
        (("m-f16.gguf", "mmproj-m-f16.gguf", "m.imatrix.gguf"), None, "m-f16.gguf"),
        (("model.gguf", "big-model.gguf"), "model", "model.gguf"),
        (("BF16/m.gguf", "Q8_0/m.gguf"), "BF16-m", "BF16/m.gguf"),
        (("m-MXFP4.gguf", "m-Q8_0.gguf"), "mxfp4", "m-MXFP4.gguf"),
        ((*SPLIT, "m-Q4_0.gguf"), "Q4_0", "m-Q4_0.gguf"),
        ((SPLIT[0], "m-Q4_0.gguf"), "Q4_0", "m-Q4_0.gguf"),
    ],
)
def test_a_tag_means_one_model(names: tuple[str, ...], tag: str | None, file: str) -> None:
    assert taken(names, tag) == [file]


@pytest.mark.parametrize("tag", ["Q8_0", "q8_0", "m-Q8_0-00001-of-00002"])
def test_a_tag_means_all_parts_of_a_model(tag: str) -> None:
    assert taken((SPLIT[1], "m-Q4_0.gguf", SPLIT[0]), tag) == list(SPLIT)


@pytest.mark.parametrize("tag", [None, "Q8_0", "f16", "m", "Q9", "m-Q8_0-00001-of-00002"])
@pytest.mark.parametrize(
    "names",
    [
        SPLIT[:1],
        (*SPLIT[1:], "m-Q4_0.gguf"),
        (*SPLIT, "m-Q4_0.gguf"),
        (*SPLIT, "m-Q4_0.gguf", "n-Q4_0.gguf", "mmproj-m-f16.gguf"),
        ("mmproj-m-f16.gguf",),
        ("BF16/m.gguf", "Q8_0/m.gguf", "m.gguf"),
        ("my model--8bit.gguf", "my model--4bit.gguf", "other.gguf"),
        ("model-8bit.gguf", "8bit.gguf"),
    ],
)
def test_an_error_about_files_advises_only_what_works(names: tuple[str, ...], tag: str | None) -> None:
    with contextlib.suppress(SquishError):
        assert taken(names, tag) in (list(SPLIT), *([name] for name in names if name not in SPLIT))
        return
    with pytest.raises((ModelNotFound, UnsupportedModel)) as refused:
        choose(snapshot(*names), tag)
    assert refused.value.hint
    advised = re.findall(r"org/files:[\w.-]*\w", refused.value.hint)
    single = [name for name in names if name not in SPLIT and "mmproj" not in name]
    assert len(advised) == len(single) + (set(SPLIT) <= set(names))
    for name in advised:
        ref = parse(name)
        assert isinstance(ref, RepoName) and taken(names, ref.tag) in (list(SPLIT), *([name] for name in single))


def write_parts(folder: Path, stem: str = "tiny-Q8_0", first: int = 5) -> list[Path]:
    """A tiny model in two parts. first: tensors in the first of them, 0 as llama.cpp's splitter can leave it."""
    tiny, _ = tiny_model(Q8_0)
    tiny.metadata["general.description"] = "x" * 2 * beginning.FIRST
    names, paths = list(tiny.tensors), []
    for number, part in enumerate((names[:first], names[first:])):
        own: dict[str, Value] = {"split.no": number, "split.count": 2}
        metadata = {**tiny.metadata, **own} if number == 0 else own
        path = folder / f"{stem}-{number + 1:05}-of-00002.gguf"
        paths.append(write_gguf(path, metadata, {name: tiny.tensors[name] for name in part}))
    return paths


def test_a_block_format_of_a_later_part_is_refused_before_the_weights(hub: LocalHub, tmp_path: Path) -> None:
    first, _ = write_parts(tmp_path, first=0)
    odd = {"blk.1.attn_q.weight": Blob((64, 64), 99, bytes(8 * MIB))}
    last = write_gguf(tmp_path / "last.gguf", {"split.no": 1, "split.count": 2}, odd)
    hub.add_repo("org/parts", {first.name: first.read_bytes(), "tiny-Q8_0-00002-of-00002.gguf": last.read_bytes()})
    with pytest.raises(UnsupportedModel, match="format number 99"):
        Puller(tmp_path / "home", hub.url).pull("org/parts")
    assert hub.sent("tiny-Q8_0-00002-of-00002.gguf") == beginning.FIRST


def test_whichever_part_is_named_it_is_one_model(tmp_path: Path) -> None:
    user = Puller(tmp_path / "home", "http://127.0.0.1:9")
    first, second = write_parts(tmp_path)
    manifest = user.pull(str(second)).installed.manifest
    assert (manifest.id, manifest.source) == ("tiny-q8_0", f"file:{first}")
    assert not user.pull(str(first)).fresh


@pytest.mark.parametrize("first", [0, 5])
def test_a_model_in_parts_is_pulled_from_the_hub_and_from_here(hub: LocalHub, tmp_path: Path, first: int) -> None:
    paths = write_parts(tmp_path, first=first)
    hub.add_repo("org/parts", {path.name: path.read_bytes() for path in paths})
    user = Puller(tmp_path / "home", hub.url)
    manifest = user.pull("org/parts:Q8_0").installed.manifest
    assert (manifest.id, manifest.architecture) == ("org/parts:Q8_0", "llama")
    folder = tmp_path / "folder"
    folder.mkdir()
    for path in paths:
        path.rename(folder / path.name)
    events = user.events(str(folder))
    pulled = events[-1]
    assert isinstance(pulled, Pulled)
    local = pulled.installed.manifest
    bytes_done = [each.done for each in events if isinstance(each, Progress) and each.phase == "import"]
    assert bytes_done[0] == 0 and bytes_done == sorted(bytes_done), "it never falls back"
    assert bytes_done[-1] == sum(path.stat().st_size for path in folder.iterdir())
    assert (local.architecture, local.parameters) == ("llama", manifest.parameters)


async def test_what_was_imported_is_verified_once_its_weights_are_written(tmp_path: Path) -> None:
    user, tiny, seen = Puller(tmp_path / "home", "http://127.0.0.1:9"), tmp_path / "tiny.gguf", list[PullEvent]()
    tiny_model(Q8_0)[0].write(tiny)
    order = make_order(parse(str(tiny)), None, None, user.settings, user.store, None)
    async with Jobs(user.settings.worker_cache) as jobs:
        await install_gguf(order, tiny, seen.append, jobs)
    size = tiny.stat().st_size
    assert seen[seen.index(Progress("import", size, size)) + 1] == Progress("verify", 0, size)


def test_a_refused_file_says_what_to_pull_in_its_place(tmp_path: Path) -> None:
    head = write_gguf(tmp_path / "Llama-3.2-1B-Instruct-Q4_K_M.gguf", {"general.architecture": "made_up"}, {})
    with pytest.raises(UnsupportedModel, match="made_up") as refused:
        Puller(tmp_path / "home", "http://127.0.0.1:9").pull(str(head))
    assert refused.value.hint is not None and "squish pull llama3.2:1b" in refused.value.hint


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("bartowski/Llama-3.2-3B-Instruct-GGUF", "llama3.2:3b"),
        ("gemma-3-12b-it-qat-UD-Q4_K_XL.gguf", "gemma3:12b"),
        ("Qwen2.5-0.5B-Instruct-IQ4_XS-00001-of-00002.gguf", "qwen2.5:0.5b"),
        ("org/Llama-3.2-3B-GGUF", None),  # the base model is another one
        ("model-Q8_0.gguf", None),
    ],
)
def test_the_catalog_knows_the_same_model(name: str, advice: str | None) -> None:
    hint = counterpart.advised(UnsupportedModel("No."), name).hint
    assert hint is None if advice is None else hint is not None and hint.endswith(f"squish pull {advice}")


def test_every_variant_has_a_tag_of_its_own() -> None:
    among = variants(snapshot("a-Q4_0.gguf", "b-Q4_0.gguf", "b-Q8_0.gguf", "x/b-Q8_0.gguf", *SPLIT))
    tags = [shortest_tag(each, among) for each in among]
    assert tags == ["a-Q4_0", "b-Q4_0", "b-Q8_0", "m-Q8_0", "x-b-Q8_0"]


def test_the_address_of_a_file_is_pulled_and_what_lies_beside_it_is_not(hub: LocalHub, tmp_path: Path) -> None:
    name = "SmolLM2-Q4_1-00001-of-00001.gguf"
    hub.add_repo(
        "org/one",
        {name: tiny_model(Q8_0)[0].write(tmp_path / "x.gguf").read_bytes(), "mmproj-SmolLM2-Q4_1.gguf": b"GGUF"},
    )
    user = Puller(tmp_path / "home", hub.url)
    manifest = user.pull(f"https://huggingface.co/org/one/blob/main/{name}?not-for-all-audiences=true")
    assert manifest.installed.manifest.id == "org/one:SmolLM2-Q4_1-00001-of-00001"
    assert hub.sent("mmproj-SmolLM2-Q4_1.gguf") == 0


def test_a_file_may_be_called_as_a_compression_is(hub: LocalHub, tmp_path: Path) -> None:
    hub.add_repo(
        "org/odd", {"m-8bit.gguf": tiny_model(Q8_0)[0].write(tmp_path / "x.gguf").read_bytes(), "m-MXFP4.gguf": b"GGUF"}
    )
    user = Puller(tmp_path / "home", hub.url)
    assert user.pull("org/odd:8bit").installed.manifest.id == "org/odd:8bit"
    assert not user.pull("org/odd:8bit").fresh
    assert hub.sent("m-MXFP4.gguf") == 0


def test_a_file_is_known_by_its_first_bytes_whatever_it_is_called(tmp_path: Path) -> None:
    blob = tmp_path / "blobs" / f"sha256-{'0a' * 32}"
    blob.parent.mkdir()
    blob.symlink_to(tiny_model(Q8_0)[0].write(tmp_path / "x.gguf"))
    user = Puller(tmp_path / "home", "http://127.0.0.1:9")
    assert user.pull(str(blob), as_name="mine:135m").installed.manifest.architecture == "llama"
    (tmp_path / "model.bin").write_bytes(b"pickle")
    with pytest.raises(UnsupportedModel, match=r"model\.bin is not a GGUF file"):
        user.pull(str(tmp_path / "model.bin"))
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    with pytest.raises(UnsupportedModel) as refused:
        user.pull(str(tmp_path / "model.safetensors"))
    assert f"squish pull {tmp_path}" in (refused.value.hint or "")
