"""What the routes of one application share: the program behind it, how it was started, and the way to a model by name.

What a dialect keeps between two requests is an object here, so that it belongs to one application, not to the process.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from squish.api.batches.jobs import Batches
from squish.api.clients.clients import Clients
from squish.api.clients.keys import ApiKey
from squish.api.metrics import Metrics
from squish.api.models import check_model, pull_first
from squish.api.responses.store import ResponseStore
from squish.api.serving.ending import Ending
from squish.api.serving.opening import Opening
from squish.api.serving.options import Options
from squish.runtime import Runtime

if TYPE_CHECKING:
    from squish.api.telemetry.collector import Collector


@dataclass(frozen=True, slots=True)
class Services:
    """opening: when models may be asked. large_body: held while a large body is read, so that they take turns.

    responses: those that are kept for OpenAI's Responses API. batches: those that it runs, and their
    files. clients: who may ask, and what they use. collector: where requests are traced to, if they are.
    """

    runtime: Runtime
    options: Options
    opening: Opening
    batches: Batches
    metrics: Metrics
    clients: Clients
    collector: Collector | None = None
    large_body: asyncio.Lock = field(default_factory=asyncio.Lock)
    ending: Ending = field(default_factory=Ending)
    responses: ResponseStore = field(default_factory=ResponseStore)

    @asynccontextmanager
    async def asking(self, model: str, key: ApiKey | None, *, counted: bool = True) -> AsyncIterator[None]:
        """Around whatever asks for a model by the name that a client wrote: it waits until the server is open.

        key: the client's. counted: it is one of the requests that a key may send; what computes nothing is none.
        Raises ModelNotFound, which says how to pull it; QueueFull and Refused (503) while the server is not open, and
        Refused for what the key may not (403, 429).
        """
        check_model(model)
        await self.opening.passed()
        with self.clients.asking(key, model, counted=counted), pull_first(model):
            yield
