"""What `squish run --file` and `--url` send along."""

from __future__ import annotations

from pathlib import Path

import pytest

from squish.commands.answers import run_files
from squish.config.settings import Settings
from squish.errors import InvalidInput, Offline
from tests.attachments import made


def offline(home: Path) -> Settings:
    return Settings(home=home, cache_dir=home, offline=True)


async def test_files_documents_and_folders_go_along(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "b.docx").write_bytes(made.docx(made.paragraph("word")))
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "c.py").write_text("1")
    (tmp_path / "src" / ".env").write_text("secret")
    named = [str(tmp_path / each) for each in ("a.txt", "b.docx", "src")]
    files = await run_files.read(offline(tmp_path), named, [])
    assert [each.text for each in files] == ["text", "word", "1"]
    assert "1 files, 1 B; left out: 1 hidden" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "says"),
    [("gone.txt", "no file gone"), ("word", "no file word"), ("https://a.example/", "no file http")],
)
async def test_what_is_not_there_is_named(name: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=says):
        await run_files.read(offline(tmp_path), [name], [])


async def test_nothing_is_fetched_when_squish_is_offline(tmp_path: Path) -> None:
    with pytest.raises(Offline, match="SQUISH_OFFLINE"):
        await run_files.read(offline(tmp_path), [], ["https://a.example/"])


async def test_a_private_address_is_not_fetched_where_nobody_can_be_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("squish.commands.answers.run_tools.asker", lambda: None)
    with pytest.raises(InvalidInput, match="private address"):
        await run_files.read(Settings(home=tmp_path, cache_dir=tmp_path), [], ["http://127.0.0.1:9/"])
