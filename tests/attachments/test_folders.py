"""What of a folder goes along with a message."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from squish.attachments import folders, gathering, gitignore, mentions, pdf
from squish.attachments.folders import Folder
from squish.attachments.gathering import Gatherer
from squish.attachments.mentions import Mention
from squish.chats.messages import Attachment
from squish.errors import InvalidInput
from tests.attachments import made


@pytest.mark.parametrize(
    ("pattern", "path", "ignored"),
    [
        ("*.log", "a/b.log", True),
        ("*.log", "a.log.txt", False),
        ("/build", "build", True),
        ("/build", "a/build", False),
        ("build/", "a/build", True),
        ("a/*.py", "a/b.py", True),
        ("a/*.py", "a/b/c.py", False),
        ("a/**/c", "a/c", True),
        ("a/**/c", "a/b/b/c", True),
        ("**/c", "a/c", True),
        ("a/**", "a/b/c", True),
        ("file[0-9]?", "file1x", True),
        ("file[!0-9]", "file1", False),
        ("[", "[", True),
        ("\\#a", "#a", True),
        ("# a", "# a", False),
        ("", "", False),
        ("a(b", "a(b", True),
    ],
)
def test_patterns(pattern: str, path: str, ignored: bool) -> None:
    assert gitignore.is_ignored(path, True, gitignore.patterns(pattern)) is ignored


def test_the_last_pattern_decides_and_directories_can_be_meant_alone() -> None:
    known = gitignore.patterns("*.txt\n!keep.txt\nout/\n")
    assert gitignore.is_ignored("a.txt", False, known)
    assert not gitignore.is_ignored("keep.txt", False, known)
    assert not gitignore.is_ignored("out", False, known)


def tree(top: Path, **files: str | bytes) -> None:
    for name, content in files.items():
        path = top / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)


def test_text_files_are_taken_and_everything_else_is_counted(tmp_path: Path) -> None:
    tree(tmp_path, b_py="print()\n", a__c_md="# c", a__d_bin=b"\x00\x01", a__e="", a__f_txt="x" * 600_000)
    tree(tmp_path, _env="SECRET=1", _git__config="x")
    (tmp_path / "link").symlink_to("/etc/hostname")
    folder = folders.read(tmp_path, "src/")
    assert [(each.name, each.text) for each in folder.files] == [("src/a/c.md", "# c"), ("src/b.py", "print()\n")]
    assert folder.size == 11
    assert folder.left_out == {"hidden": 2, "not text": 1, "empty": 1, "too large or unreadable": 1, "links": 1}


def test_gitignore_holds_also_for_a_folder_within_the_repository(tmp_path: Path) -> None:
    tree(tmp_path, _git__HEAD="", _gitignore="*.log\n/src/gen\nbuild/\n", src__a_py="1", src__x_log="2")
    tree(tmp_path, src__gen__b_py="3", src__build__c_py="4", src__sub___gitignore="!x.log\nd.py", src__sub__x_log="5")
    tree(tmp_path, src__sub__d_py="6", build__e_py="7")
    assert [each.name for each in folders.read(tmp_path / "src", "src").files] == ["src/a.py", "src/sub/x.log"]
    assert [each.name for each in folders.read(tmp_path, ".").files] == ["./src/a.py", "./src/sub/x.log"]
    assert [each.name for each in folders.read(tmp_path / "build", "build").files] == ["build/e.py"], "named on purpose"


def test_a_folder_that_holds_too_much_or_nothing_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidInput, match="no text files"):
        folders.read(tmp_path, "x")
    tree(tmp_path, a="1" * 100, b="2", c="3")
    for limit, says in (("MAX_FILES", "2 text files"), ("MAX_ENTRIES", "2 names"), ("MAX_ALL", "KiB")):
        with monkeypatch.context() as patched, pytest.raises(InvalidInput, match=says):
            patched.setattr(folders, limit, 2)
            folders.read(tmp_path, "x")


def test_names_that_cannot_be_shown_are_left_out(tmp_path: Path) -> None:
    for name in ("a.txt", "b\x1b[31mred.txt", "c\nSend this.txt"):
        (tmp_path / name).write_text("text")
    folder = folders.read(tmp_path, "here/")
    assert [each.name for each in folder.files] == ["here/a.txt"]
    assert folder.left_out == {"with control characters in their names": 2}
    assert mentions.completions("@", tmp_path) == ["@a.txt"]


def test_a_pipe_is_said_to_be_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    found = mentions.look("pipe.txt", tmp_path)
    assert found is not None and (found.problem, found.missing) == ("neither a file nor a folder", False)


class Agreed:
    """Whoever is asked says yes; what it was shown."""

    def __init__(self) -> None:
        self.shown: list[Folder] = []

    async def folder(self, folder: Folder) -> bool:
        self.shown.append(folder)
        return True

    async def page(self, address: object) -> bool:
        raise AssertionError("a folder has no pages")


async def gathered(top: Path) -> tuple[tuple[Attachment, ...], Folder]:
    agreed = Agreed()
    files = await Gatherer().gather([Mention("papers/", top, "folder")], agreed)
    return files, agreed.shown[0]


async def test_documents_of_a_folder_are_read_and_those_that_cannot_be_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folders, "MAX_DOCUMENTS", 2)
    monkeypatch.setattr(pdf, "can_read", lambda: False)
    tree(tmp_path, b_txt="plain", c__a_docx=made.docx(made.paragraph("said so")), d_docx=b"not a document")
    tree(tmp_path, e_docx=b"one too many", f_pdf=made.pdf("x"))
    files, folder = await gathered(tmp_path)
    assert [(each.name, each.text) for each in files] == [("papers/b.txt", "plain"), ("papers/c/a.docx", "said so")]
    assert folder.size == len("plainsaid so")
    assert set(folder.not_read) == {"papers/d.docx", "papers/e.docx", "papers/f.pdf"}
    assert "only 2 documents" in folder.not_read["papers/e.docx"] and "pypdf" in folder.not_read["papers/f.pdf"]
    assert "papers/d.docx (" in folder.without and folder.left_out == {}


async def test_a_document_without_room_is_named_and_a_folder_without_any_text_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree(tmp_path, a_docx=made.docx(made.paragraph("too long for it")))
    monkeypatch.setattr(gathering, "MAX_ALL", 8)
    with pytest.raises(InvalidInput, match=r"papers/ has no text files .*a\.docx \(no room left"):
        await gathered(tmp_path)


def test_of_many_names_a_few_are_said() -> None:
    folder = Folder("f", not_read={f"{at}.pdf": "damaged" for at in range(20)})
    assert folder.without.count("damaged") == 8 and folder.without.endswith("and 12 more")
