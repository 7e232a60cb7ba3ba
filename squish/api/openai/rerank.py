"""POST /v1/rerank: which documents answer a query best, in the shapes of Jina and Cohere, which others serve too."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import UNSET, UnsetType

from squish.api import bodies
from squish.api.dialect import Call
from squish.api.fields.documented import documented
from squish.api.fields.foreign import Level, refuse
from squish.api.fields.limits import check_range, keep_alive
from squish.api.openai.embeddings import EmbeddingUsage
from squish.api.openai.requests import Ignored, KeepAlive, NotEmpty
from squish.api.replies.vectors import vectors
from squish.embeddings import MAX_INPUTS, EmbeddingRequest, Embeddings, TextPair
from squish.errors import InvalidInput

_TRUNCATE = "Use truncate: true, which takes the beginning of a document."
FOREIGN = Level(
    {
        **dict.fromkeys(
            ("max_tokens_per_doc", "max_chunks_per_doc", "truncate_prompt_tokens", "truncation"), _TRUNCATE
        ),
        **dict.fromkeys(("input", "texts", "passages"), "Use documents."),
        **dict.fromkeys(("rank_fields", "instruction", "raw_scores", "activation"), "Leave it out."),
    }
)


class DocumentText(msgspec.Struct, kw_only=True):
    text: str


class RerankRequest(msgspec.Struct, kw_only=True):
    """POST /v1/rerank."""

    model: Annotated[str, documented("An installed reranking model.", minLength=1)]
    query: NotEmpty
    documents: Annotated[list[str | DocumentText], documented("Texts, or objects with a `text`.", minItems=1)]
    top_n: Annotated[int, documented("How many results, the best ones; default: all.", minimum=1)] | None = None
    return_documents: Annotated[bool, documented("true: each result has its text.")] | None = None
    truncate: Annotated[bool, documented("true: of a document that is too long, the beginning is taken.")] | None = None
    keep_alive: KeepAlive | None = None
    user: Ignored | None = None


class RerankResult(msgspec.Struct, kw_only=True):
    """index: the document's place in the request. relevance_score: between 0 and 1 as a rule, as the model says."""

    index: int
    relevance_score: float
    document: DocumentText | UnsetType = UNSET


class Reranked(msgspec.Struct, kw_only=True):
    """results: the most relevant first."""

    object: str = "list"
    model: str
    results: list[RerankResult]
    usage: EmbeddingUsage


async def rerank(call: Call) -> Reranked:
    """The answer to POST /v1/rerank."""
    request = await call.read(read)
    asked = to_pairs(request)
    async with call.asking(asked.model):
        found = await vectors(call, asked)
    return ranked(request, found)


def read(body: bytes) -> RerankRequest:
    """A body of POST /v1/rerank. Raises InvalidInput naming the field."""
    request = bodies.decode(body, RerankRequest)
    refuse(body, FOREIGN)
    return request


def to_pairs(request: RerankRequest) -> EmbeddingRequest:
    """What is asked for. Raises InvalidInput naming the field."""
    for name in ("model", "query"):
        if not getattr(request, name).strip():
            raise InvalidInput(f"{name} must not be empty.", param=name)
    if not 1 <= len(request.documents) <= MAX_INPUTS:
        raise InvalidInput(f"documents has 1 to {MAX_INPUTS} texts, not {len(request.documents)}.", param="documents")
    check_range(request.top_n, "top_n", 1)
    return EmbeddingRequest(
        model=request.model,
        inputs=tuple(TextPair(request.query, _text(each)) for each in request.documents),
        truncate=bool(request.truncate),
        keep_alive=keep_alive(request.keep_alive),
    )


def ranked(request: RerankRequest, found: Embeddings) -> Reranked:
    """The scores as an answer. Documents that are equally good stay in their order."""
    scores = [found.floats(index)[0] for index in range(len(found.tokens))]
    order = sorted(range(len(scores)), key=lambda index: -scores[index])[: request.top_n]
    results = [RerankResult(index=index, relevance_score=scores[index]) for index in order]
    if request.return_documents:
        for each in results:
            each.document = DocumentText(text=_text(request.documents[each.index]))
    tokens = sum(found.tokens)
    usage = EmbeddingUsage(prompt_tokens=tokens, total_tokens=tokens)
    return Reranked(model=request.model, results=results, usage=usage)


def _text(document: str | DocumentText) -> str:
    return document if isinstance(document, str) else document.text
