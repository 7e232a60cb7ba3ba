"""mlx_lm.server: it holds no answer to a form, and its list of models can be missing."""

from __future__ import annotations

from squish.models.manifest import Manifest
from squish.remote import fields
from squish.remote.connection import NotJson, ServerConnection
from squish.remote.plain_server import PlainServer
from squish.remote.wire import ModelEntry

_STARTED_WITH = "default_model"
"""What it calls the model of its own command line."""


class MlxServer(PlainServer):
    """It loads what it is asked; a model that it does not have it would download, so only those listed are asked."""

    def __init__(self, connection: ServerConnection) -> None:
        super().__init__(connection, "/v1", "mlx_lm.server", fields.MLX)

    async def models(self) -> list[Manifest]:
        try:
            return await super().models()
        except NotJson as error:
            if not error.empty:
                raise
            # It reads its list from the Hub's cache, and where there is none it breaks off after the head.
            return self._read((ModelEntry(_STARTED_WITH),))
