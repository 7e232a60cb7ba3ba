"""OpenAI's dialect: which paths it has and what makes it one."""

from __future__ import annotations

from squish.api.batches import routes as batches
from squish.api.dialect import Dialect, Route
from squish.api.models import Model, ModelList
from squish.api.openai import translate
from squish.api.openai.embeddings import EmbeddingList, EmbeddingsRequest, embeddings
from squish.api.openai.errors import ErrorBody, error_body
from squish.api.openai.requests import ChatRequest, CompletionRequest
from squish.api.openai.rerank import Reranked, RerankRequest, rerank
from squish.api.openai.responses import ChatChunk, ChatCompletion, Completion
from squish.api.operation import Operation

_OPERATIONS = (
    Operation(
        "POST",
        "/v1/chat/completions",
        "createChatCompletion",
        "Answer a conversation.",
        ChatCompletion,
        ChatRequest,
        ("text/event-stream", "`data:` lines, each a ChatChunk; [DONE]."),
        (ChatChunk,),
    ),
    Operation(
        "POST",
        "/v1/completions",
        "createCompletion",
        "Continue texts.",
        Completion,
        CompletionRequest,
        ("text/event-stream", "`data:` lines, each a Completion; [DONE]."),
    ),
    Operation(
        "POST",
        "/v1/embeddings",
        "createEmbedding",
        "Turn texts into vectors, with an embedding model.",
        EmbeddingList,
        EmbeddingsRequest,
    ),
    Operation(
        "POST",
        "/v1/rerank",
        "rerank",
        "Say how well each document answers a query, with a reranking model.",
        Reranked,
        RerankRequest,
    ),
    Operation("GET", "/v1/models", "listModels", "Every installed model.", ModelList),
    Operation("GET", "/v1/models/{id}", "getModel", "One installed model; its id can contain a slash.", Model),
    *batches.OPERATIONS,
)

OPENAI = Dialect(
    name="openai",
    prefixes=("/v1",),
    paths=(
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/responses",
        "/v1/embeddings",
        "/v1/rerank",
        "/v1/models",
        "/v1/files",
        "/v1/batches",
    ),
    answers={"/v1/chat/completions": translate.read_chat, "/v1/completions": translate.read_completion},
    error=error_body,
    errors=ErrorBody,
    operations=_OPERATIONS,
    routes=(Route("POST", "/v1/embeddings", embeddings), Route("POST", "/v1/rerank", rerank), *batches.ROUTES),
)
