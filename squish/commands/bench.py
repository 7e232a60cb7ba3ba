"""`squish bench`: measures an installed model on a server of our own, beside another one if asked, and remembers."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

import click

from squish import console
from squish.commands.completion import complete_model
from squish.commands.flags import Whole, kv_bits_option
from squish.commands.serving.ranks import ranks_option
from squish.config.settings import Settings
from squish.errors import InvalidInput, ModelNotFound
from squish.text import whole

if TYPE_CHECKING:
    from squish.bench.measure import Endpoint, Figure, Workload
    from squish.models.store import Installed
    from squish.system.probed import Probed
    from squish.system.servers import ServedModel

_ROOM = 256  # tokens that a prompt may turn out longer than planned, and its answer
_LONGEST = 1_000_000
_MOST_STREAMS = 64


@click.command()
@click.argument("model", required=False, shell_complete=complete_model)
@click.option(
    "--rounds", type=Whole(1, 100), default=3, show_default=True, help="How many times everything is measured."
)
@click.option("--prompts", default="128,512,2048", show_default=True, help="Prompt lengths, in tokens.")
@click.option(
    "--streams", default="1,2,4,8", show_default=True, help="How many answers are generated at the same time."
)
@click.option("--tokens", type=Whole(8, 4096), default=96, show_default=True, help="Tokens in each answer.")
@click.option(
    "--compare", metavar="URL,MODEL", help="Also measure a model on another OpenAI server, in alternating rounds."
)
@ranks_option
@kv_bits_option
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array: one object per server, with every round.")
def bench(
    model: str | None,
    rounds: int,
    prompts: str,
    streams: str,
    tokens: int,
    compare: str | None,
    ranks: int,
    kv_bits: str | None,
    as_json: bool,
) -> None:
    """Measure how fast a model is on this machine.

    Every prompt is unique, tokens are counted from usage, and cached tokens are shown. The result is saved, and
    `squish list` shows it. Let the machine idle during the measurement.

    The key of the other server is read from OPENAI_API_KEY.

    \b
    squish bench smollm2:135m
    squish bench smollm2:135m --rounds 5 --json > speed.json
    squish bench qwen3:8b --compare http://127.0.0.1:8080,qwen3-8b
    """
    from squish.bench.measure import Workload

    settings = Settings.from_environment()
    installed = _installed(settings, model)
    installed.manifest.require("chat")
    context = installed.manifest.context_length
    asked = _numbers(prompts, "--prompts", _LONGEST)
    lengths = tuple(length for length in asked if length + _ROOM <= context)
    if longer := [str(length) for length in asked if length not in lengths]:
        console.note(f"Left out: prompts of {', '.join(longer)} tokens, because the context holds {context:,}.")
    workload = Workload(rounds, lengths, tokens, _numbers(streams, "--streams", _MOST_STREAMS))
    options = (*(("--ranks", str(ranks)) if ranks > 1 else ()), *(("--kv-bits", kv_bits) if kv_bits else ()))
    asyncio.run(_bench(settings, installed, workload, _other(compare), options, as_json))


def _installed(settings: Settings, model: str | None) -> Installed:
    """The model to measure: the one named, else the configured one, else the first."""
    from squish.models.store import Store

    store = Store(settings.cache_dir)
    if name := model or settings.model:
        return store.find(name)
    models = [manifest for manifest in store.list() if manifest.writes]
    if not models:
        raise ModelNotFound("No model that answers is installed.", hint="Run: squish pull smollm2:135m", param="model")
    return store.find(models[0].id)


def _numbers(text: str, flag: str, most: int) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",") if part.strip()]
    numbers = tuple(number for part in parts if (number := whole(part)) is not None and 1 <= number <= most)
    if len(numbers) < len(parts):
        must = f"numbers from 1 to {most:,} with commas between"
        raise InvalidInput(f"{flag} is {text!r}; it must be {must}.", param=flag)
    return numbers


def _other(compare: str | None) -> tuple[str, str] | None:
    """Address and model of the other server."""
    if compare is None:
        return None
    url, comma, model = compare.partition(",")
    if not (comma and model and url.startswith(("http://", "https://"))):
        raise InvalidInput(
            f"{compare!r} is not an address and a model.", hint="Write it as http://host:port,MODEL", param="--compare"
        )
    return url, model


async def _bench(
    settings: Settings,
    installed: Installed,
    workload: Workload,
    other: tuple[str, str] | None,
    options: tuple[str, ...],
    as_json: bool,
) -> None:
    from contextlib import AsyncExitStack

    from squish.bench.measure import Endpoint, Figure, measure
    from squish.system.own_server import own_server

    status, model = console.Status(), installed.manifest.id
    async with AsyncExitStack() as stack:
        before = await _probe(settings, status)
        with status.waiting("starting a server…"):
            server = await stack.enter_async_context(own_server(settings.home, *options))
        endpoints: list[Endpoint] = [await stack.enter_async_context(Endpoint(server.url, model, server.key))]
        if other:
            endpoints.append(await stack.enter_async_context(Endpoint(*other, os.environ.get("OPENAI_API_KEY"))))
        try:
            sides = await measure(endpoints, workload, status.wait)
        finally:
            status.clear()
        server.look()
        loaded = await asyncio.to_thread(server.model, model)
    if not options:
        _remember(settings, model, sides[0])
    # What is in memory is a part of the weights for a rank, and more than them with a draft model.
    shared = "--ranks" in options or model in dict(settings.draft)
    weights = 0 if loaded is None or shared else loaded.weights_bytes
    after = await _probe(settings, status) if before else None  # a probe that fails says so once
    probes = [each for each in (before, after) if each]
    memory = Figure("peak memory", "GB", (server.peak / 1e9,))
    own = (memory, *_limits(installed, sides[0], probes, weights))
    if as_json:
        every = zip(endpoints, [(*sides[0], *own), *sides[1:]], [loaded, None], strict=False)
        console.out_json([_json(endpoint, figures, served) for endpoint, figures, served in every])
        return
    _print(endpoints, sides, own)
    if loaded:
        console.out(f"{model}: {loaded.backend}")


async def _probe(settings: Settings, status: console.Status) -> Probed | None:
    """What the machine can do, while no server of ours runs; None where that cannot be found out."""
    from squish.doctor.engine import probe
    from squish.system.probed import CannotProbe

    with status.waiting("measuring memory and matrix products…"):
        probed = await asyncio.to_thread(probe, settings)
    if isinstance(probed, CannotProbe):
        console.note(probed.reason)
        return None
    return probed


def _limits(
    installed: Installed, figures: tuple[Figure, ...], probes: list[Probed], weights: int
) -> tuple[Figure, ...]:
    from squish.bench.limits import cost_of, limits, most

    return limits(figures, cost_of(installed.path, weights), most(*probes)) if probes else ()


def _print(endpoints: list[Endpoint], sides: list[tuple[Figure, ...]], own: tuple[Figure, ...]) -> None:
    from squish.bench.measure import rows

    headers = ["MEASURED"]
    for endpoint in endpoints:
        headers += [endpoint.model, "SPREAD", "CACHED", "GUESSED"]
    headers += ["TIMES BETTER"] if len(endpoints) == 2 else []
    blank = ("",) * (len(headers) - 2)
    table = [*rows(sides), *((each.name, f"{each.median:.4g} {each.unit}", *blank) for each in own)]
    console.table(headers, table, right=frozenset(range(1, len(headers))))


def _json(endpoint: Endpoint, figures: tuple[Figure, ...], served: ServedModel | None) -> dict[str, Any]:
    """served: as our own server had it in memory."""
    return {
        "model": endpoint.model,
        "url": endpoint.url,
        "engine": served
        and {
            "backend": served.backend,
            "kernel": served.kernel,
            "precision": served.precision,
            "kv_bits": served.kv_bits,
        },
        "figures": [
            {
                "name": figure.name,
                "unit": figure.unit,
                "median": round(figure.median, 4),
                "values": [round(value, 4) for value in figure.values],
                "cached_tokens": figure.cached,
                "accepted_tokens": figure.guessed,
            }
            for figure in figures
        ],
    }


def _remember(settings: Settings, model: str, figures: tuple[Figure, ...]) -> None:
    from datetime import UTC, datetime

    from squish import __version__
    from squish.models.speeds import Speed, remember

    found = {figure.name: figure.median for figure in figures}
    if decode := found.get("decode, 1 stream"):
        ttft = found.get("first token, 512 tokens")
        now = datetime.now(UTC).replace(microsecond=0)
        remember(settings.home, model, Speed(round(decode, 2), ttft and round(ttft, 4), now, __version__))
