"""What a user does, while a journal is kept: `python -m tests.crash.scenarios NAME ROOT SOURCE`.

ROOT is an empty directory that becomes the user's; SOURCE a model to install. After each step that is promised to last,
a mark is written, as an operation among the others: whoever finds it in the journal may rely on what came before.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from squish.api.batches.jobs import Batches
from squish.api.batches.lines import ENDPOINTS, Item, Line, LineResponse, line_id
from squish.api.batches.shapes import ENDED, BatchObject, BatchRequest
from squish.api.clients.keys import ApiKey, KeyFile
from squish.api.clients.usage import UsageFile
from squish.chats.chats import Chats
from squish.config import state
from squish.config.settings import Settings
from squish.files import write_new
from squish.models import move as moving
from squish.models.manifest import Manifest
from squish.models.recipes import CompressionOptions, recipe
from squish.models.store import Store
from squish.pull.pull import pull

Mark = Callable[..., None]

REPO = "org/tiny"


def main() -> None:
    name, root, source = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    with (root / ".marks").open("ab", buffering=0) as file:

        def mark(what: str, **facts: Any) -> None:
            file.write(json.dumps([what, facts]).encode() + b"\n")

        SCENARIOS[name](root, source, mark)


def settings_of(root: Path, **changes: Any) -> Settings:
    return Settings(home=root, cache_dir=root / "models", offline=True, **changes)


def store(root: Path, source: Path, mark: Mark) -> None:
    """Install as it is, compress, replace, rename a copy, remove."""
    settings = settings_of(root)
    models = Store(settings.cache_dir)

    async def install(id: str, *, force: bool = False, bits: str | None = None) -> None:
        compression = CompressionOptions(recipe(bits)) if bits else None
        async with pull(
            str(source), as_name=id, settings=settings, store=models, force=force, compression=compression
        ) as events:
            async for _ in events:
                pass
        mark("installed", id=id)

    asyncio.run(install("plain:1b"))
    asyncio.run(install("plain:1b", force=True))
    asyncio.run(install("small:1b", bits="4"))
    models.copy("plain:1b", "copy:1b")
    mark("installed", id="copy:1b")
    mark("removing", id="plain:1b")
    models.remove("plain:1b")
    mark("removed", id="plain:1b")


def move(root: Path, source: Path, mark: Mark) -> None:
    """Two models with files in common; one moves elsewhere and back, and one is removed elsewhere."""
    models = Store(root / "models")
    (root / "disk").mkdir()
    for id, config in (("one:1b", b"{}"), ("two:1b", b"[]")):
        with models.staging(id) as staging:
            (staging / "config.json").write_bytes(config)
            (staging / "model.safetensors").write_bytes(bytes(range(250)) * 20)
            models.commit(staging, Manifest(id, "file:/x", None, "llama", "bf16", 1, 1, None, datetime.now(UTC)))
        mark("installed", id=id)
    for directory in (root / "disk", models.cache_dir):
        moving.move(models, "one:1b", directory, lambda done, total: None)
        mark("moved", id="one:1b")
    moving.move(models, "two:1b", root / "disk", lambda done, total: None)
    mark("removing", id="two:1b")
    models.remove("two:1b")
    mark("removed", id="two:1b")


def download(root: Path, source: Path, mark: Mark) -> None:
    """A model of the Hub that HF_ENDPOINT names, in two ranges."""
    settings = replace(settings_of(root), offline=False, hub_endpoint=os.environ["HF_ENDPOINT"])

    async def install() -> None:
        compression = CompressionOptions(None)
        models = Store(settings.cache_dir)
        async with pull(REPO, settings=settings, store=models, compression=compression) as events:
            async for _ in events:
                pass
        mark("installed", id=REPO)

    asyncio.run(install())


def chats(root: Path, source: Path, mark: Mark) -> None:
    """Two conversations, one of which grows, is edited and renamed, and one that is deleted."""
    kept = Chats(root / "chats.db")
    first = kept.create("plain:1b")
    question, answer = kept.ask(first, None, "How far is the moon?", "plain:1b")
    mark("asked", message=question, text="How far is the moon?")
    for text in ("It is", "It is far", "It is far away"):
        kept.grow(answer, text)
    kept.finish(answer, "It is far away.")
    mark("answered", message=answer, text="It is far away.")
    kept.rename(first, "Moon")
    mark("renamed", chat=first, title="Moon")
    second = kept.create("plain:1b", title="Other")
    mark("renamed", chat=second, title="Other")
    again = kept.answer_again(first, question, "plain:1b")
    kept.finish(again, "384,400 km.")
    mark("answered", message=again, text="384,400 km.")
    mark("removing", chat=second)
    kept.remove(second)
    mark("removed", chat=second)
    kept.close()


def memory(root: Path, source: Path, mark: Mark) -> None:
    """What the program remembers by itself, in state.toml."""
    for number in range(4):
        state.keep(root, "one", {"number": number})
        mark("kept", table="one", number=number)
        state.keep(root, "other", {"number": -number})
        mark("kept", table="other", number=-number)


def prefix(root: Path, source: Path, mark: Mark) -> None:
    """Conversations that go to disk as they do while a worker runs: one that grows, a fork of it, and others."""
    import mlx.core as mx
    from mlx_lm.models.cache import KVCache

    from squish.worker.cache.disk import DiskTier
    from squish.worker.cache.prefix import PrefixCache

    def keep(known: PrefixCache, tokens: list[int]) -> None:
        cache = KVCache()
        cache.keys = mx.array(tokens, dtype=mx.float32).reshape(1, 1, -1, 1) * mx.ones((1, 2, 1, 4))
        cache.values, cache.offset = -cache.keys, len(tokens)
        known.put(tokens, [cache])
        known.save(60)
        mark("written", tokens=tokens)

    tier = DiskTier(root / "prefix", "key", 1 << 20)
    known = PrefixCache(1 << 30, [KVCache()], tier)
    first, fork = list(range(1, 513)), [*range(1, 321), *range(1000, 1128)]
    for tokens in (first[:256], first[:384], first, fork, list(range(2000, 2256))):
        keep(known, tokens)
    keep(PrefixCache(1 << 30, [KVCache()], DiskTier(root / "prefix", "key", 1 << 20)), [*first, *range(600, 728)])
    # Another process, which has not seen the files, writes the same tokens.
    new = tier.new(first[:256])
    [stored] = [each for each in tier._files.values() if each.name == new.name]
    content = stored.path.read_bytes().replace(b'"key": "key"', b'"key" :"key"')
    assert tier.write(new, len(content), [memoryview(content)])
    mark("written", tokens=first[:256])


def batches(root: Path, source: Path, mark: Mark) -> None:
    """A server: an upload, a batch of it that is answered, and an upload that is deleted."""

    async def answer(item: Item) -> Line:
        mark("answered before", item=item.custom_id)
        return answer_to(item)

    async def serve() -> None:
        server = server_of(root, answer)
        content = b"".join(requests("a", "b", "c"))
        file = server.files.add("in.jsonl", "batch", content, None)
        mark("uploaded", file=file.id, content=content.decode())
        asked = BatchRequest(input_file_id=file.id, endpoint=ENDPOINTS[0], completion_window="24h")
        batch = server.create(asked, None)
        mark("created", batch=batch.id)
        await ended(server, batch.id)
        mark("completed", batch=batch.id)
        other = server.files.add("other.jsonl", "batch", content, None)
        mark("removing", file=other.id)
        server.files.delete(other.id)
        mark("removed", file=other.id)
        await server.close()

    asyncio.run(serve())


def requests(*ids: str) -> list[bytes]:
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
    return [json.dumps({"custom_id": id, "url": ENDPOINTS[0], "body": body}).encode() + b"\n" for id in ids]


def answer_to(item: Item) -> Line:
    return Line(line_id(item), item.custom_id, LineResponse(200, "r", msgspec.Raw(b"{}")))


def server_of(root: Path, answer: Callable[[Item], Awaitable[Line]]) -> Batches:
    return Batches(root / "batches", lambda batch: answer, functools.partial(asyncio.sleep, 0), at_once=1)


async def ended(server: Batches, id: str) -> BatchObject:
    while (batch := server.kept.find(id)) is None or batch.status not in ENDED:
        await asyncio.sleep(0.001)
    return batch


EXPORTED = "How far is the moon?\n" * 100


def home(root: Path, source: Path, mark: Mark) -> None:
    """Keys, what was used with them, and files that are made for the user."""
    keys, usage = KeyFile(root), UsageFile(root)
    for number, name in enumerate(("ada", "ben", "cyd"), 1):
        keys.add(ApiKey(name=name, hash=""))
        mark("key", name=name)
        usage.count("ada", "m", requests=1)
        usage.flush()
        mark("used", requests=number)
        write_new(root / f"{name}.md", EXPORTED)
        mark("exported", name=f"{name}.md")
    mark("removing", name="ben")
    keys.remove("ben")
    mark("removed", name="ben")


SCENARIOS: dict[str, Callable[[Path, Path, Mark], None]] = {
    "store": store, "move": move, "download": download, "chats": chats, "memory": memory, "prefix": prefix,
    "batches": batches, "home": home,
}  # fmt: skip


if __name__ == "__main__":
    main()
