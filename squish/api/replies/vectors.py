"""Vectors of texts for a route, whatever its dialect: the wait for them, their line in the log, their counts."""

from __future__ import annotations

import asyncio

import msgspec

from squish.api.dialect import Call
from squish.api.errors import to_failure
from squish.embeddings import EmbeddingRequest, Embeddings
from squish.errors import SquishError


async def vectors(call: Call, asked: EmbeddingRequest) -> Embeddings:
    """To be used within `asking`. Raises ModelNotFound, and whatever the model has against the request."""
    services = call.services
    if call.span:
        call.span.asks(asked)
    manifest = (await asyncio.to_thread(services.runtime.store.find, asked.model)).manifest
    try:
        wanted = msgspec.structs.replace(asked, client=call.client, account=call.account, background=call.in_background)
        if call.span:
            call.span.answers(manifest.id)
        found = await services.runtime.sessions.embed(wanted, call.span)
    except SquishError as error:
        if to_failure(error).status >= 500:
            services.metrics.failed(manifest.id, error.code)
        raise
    tokens = sum(found.tokens)
    call.used(manifest.id, tokens)
    services.metrics.embedded(manifest.id, tokens)
    call.note(f"model={manifest.id} prompt={tokens} vectors={len(found.tokens)}")
    return found
