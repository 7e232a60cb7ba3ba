"""A sidecar that cannot be read is one that is not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from squish.download.remote_file import read_sidecar


@pytest.mark.parametrize("content", [b"", b"{", b'{"a": ' + b"[" * 100_000, b'{"size": "\xff"}', b"[]"], ids=len)
def test_a_damaged_sidecar_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "part.json").write_bytes(content)
    assert read_sidecar(tmp_path / "part.json") is None
