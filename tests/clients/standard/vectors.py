# mypy: ignore-errors
"""LangChain's standard suite for embedding models, by two of its clients, against a real model."""

import os

from langchain_ollama import OllamaEmbeddings
from langchain_openai import OpenAIEmbeddings
from langchain_tests.integration_tests import EmbeddingsIntegrationTests

ADDRESS, MODEL = os.environ["SQUISH_URL"], "all-minilm:l6"


class TestOllamaEmbeddings(EmbeddingsIntegrationTests):
    @property
    def embeddings_class(self):
        return OllamaEmbeddings

    @property
    def embedding_model_params(self):
        return {"base_url": ADDRESS, "model": MODEL}


class TestOpenAIEmbeddings(EmbeddingsIntegrationTests):
    @property
    def embeddings_class(self):
        return OpenAIEmbeddings

    @property
    def embedding_model_params(self):
        return {
            "base_url": f"{ADDRESS}/v1", "api_key": "any", "model": MODEL, "check_embedding_ctx_length": False,
        }  # fmt: skip
