"""The grammar of model names."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from squish.errors import InvalidName
from squish.models.store import directory_name
from squish.names import LocalPath, ModelRef, RepoName, ShortName, file_tag, parse, without_latest
from squish.pull.sources import local_id

words = st.from_regex(r"[A-Za-z0-9](?:[A-Za-z0-9_]|[.-][A-Za-z0-9]){0,10}", fullmatch=True).filter(
    lambda word: not word.lower().endswith(".gguf")
)
short_names = st.builds(ShortName, words, st.none() | words)
repo_names = st.builds(RepoName, words, words, st.none() | words, st.none() | words)
paths = st.builds(
    lambda start, parts: LocalPath(Path(start, *parts)),
    st.sampled_from(["./", "../", "/", "~/"]),
    st.lists(words, min_size=1, max_size=4),
)
refs: st.SearchStrategy[ModelRef] = st.one_of(short_names, repo_names, paths)


@given(refs)
def test_a_reference_written_out_and_parsed_is_the_same(ref: ModelRef) -> None:
    assert parse(str(ref)) == ref


@given(st.text(max_size=60))
@example("hf.co/org/repo:Q8_0@main")
@example("https://huggingface.co/org/repo/")
@example("a/../b")
@example("https://huggingface.co/org/repo/blob/main/a/../b.gguf")
@example("hf.co/org/repo/blob/main/.gguf")
@example("org/repo:a.gguf.gguf")
def test_any_text_is_a_reference_or_an_invalid_name(text: str) -> None:
    try:
        ref = parse(text)
    except InvalidName as error:
        assert error.hint
    else:
        assert parse(str(ref)) == ref


@pytest.mark.parametrize(
    ("text", "ref"),
    [
        ("llama3.1", ShortName("llama3.1")),
        ("llama3.1:8b", ShortName("llama3.1", "8b")),
        ("mine:latest", ShortName("mine", "latest")),
        ("llama3.1:8b:latest", ShortName("llama3.1", "8b")),
        ("org/repo:Q8_0:latest", RepoName("org", "repo", "Q8_0")),
        ("org/repo", RepoName("org", "repo")),
        ("org/repo:Q8_0", RepoName("org", "repo", "Q8_0")),
        ("org/repo@main", RepoName("org", "repo", None, "main")),
        ("hf.co/org/repo:Q8_0", RepoName("org", "repo", "Q8_0")),
        ("https://huggingface.co/org/repo", RepoName("org", "repo")),
        ("https://huggingface.co/org/repo/tree/main", RepoName("org", "repo")),
        ("HTTPS://www.HuggingFace.co/org/repo/discussions/3#x", RepoName("org", "repo")),
        ("https://huggingface.co/org/repo/blob/main/model-Q8_0.gguf", RepoName("org", "repo", "model-Q8_0")),
        ("https://hf.co/org/repo/resolve/v2/m.gguf?download=true", RepoName("org", "repo", "m", "v2")),
        ("huggingface.co/org/repo/blob/main/BF16/My%20model--x.GGUF", RepoName("org", "repo", "BF16-My-model-x")),
        ("https://huggingface.co/org/repo/blob/main/model.safetensors", RepoName("org", "repo")),
        ("org/repo:model-Q8_0.gguf", RepoName("org", "repo", "model-Q8_0")),
        ("org/repo/model.gguf", LocalPath(Path("org/repo/model.gguf"))),
        ("model.gguf", LocalPath(Path("model.gguf"))),
        ("./dir", LocalPath(Path("dir"))),
        ("../dir", LocalPath(Path("../dir"))),
        ("/dir", LocalPath(Path("/dir"))),
        ("~/dir", LocalPath(Path("~/dir"))),
        (".", LocalPath(Path())),
        ("..", LocalPath(Path(".."))),
        ("https://huggingface.co//org/repo/", RepoName("org", "repo")),
        ("https://huggingface.co/org/repo/tree/v2", RepoName("org", "repo", None, "v2")),
        ("hf.co/org/repo/blob/main/a/b/c.gguf", RepoName("org", "repo", "a-b-c")),
        ("a" * 200, ShortName("a" * 200)),
        ("a/" + "b" * 198, RepoName("a", "b" * 198)),
        ("hf.co/a/" + "b" * 1992, RepoName("a", "b" * 1992)),
    ],
)
def test_what_names_mean(text: str, ref: ModelRef) -> None:
    assert parse(text) == ref


@pytest.mark.parametrize(
    "text", ["", " ", "a b", "a..b", "a--b", "org/", "/".join("abc"), "a:b:c", "org/re po", "-x", "a" * 300, "a\x1b[2J",
     "https://huggingface.co/datasets/org/x", "https://huggingface.co/", "https://example.org/org/repo",
     "https://huggingface.co/org/repo/blob/refs%2Fpr%2F1/m.gguf", "a" * 201, "a/" + "b" * 199, "hf.co/a/" + "b" * 1993],
)  # fmt: skip
def test_what_is_no_name(text: str) -> None:
    with pytest.raises(InvalidName):
        parse(text)


@pytest.mark.parametrize("path", ["./dir", "../dir", "/dir", "~/dir", ".", ".."])
def test_a_path_is_written_as_short_as_it_can_be(path: str) -> None:
    assert str(LocalPath(Path(path))) == path


def test_the_tag_latest_is_none_and_no_other_is() -> None:
    assert without_latest(ShortName("a", "latest")) == ShortName("a")
    assert without_latest(RepoName("a", "b", "latest", "v2")) == RepoName("a", "b", None, "v2")
    assert without_latest(ShortName("a", "8b")) == ShortName("a", "8b")


@pytest.mark.parametrize(
    ("path", "tag"), [("a b/c.gguf", "a-b-c"), ("__a--b..c_.GGUF.gguf", "a-b.c"), (".gguf", None), ("?", None)]
)
def test_the_tag_of_a_file_is_its_path_as_a_word(path: str, tag: str | None) -> None:
    assert file_tag(path) == tag


def test_an_invalid_name_says_which_field_it_stands_in() -> None:
    with pytest.raises(InvalidName) as caught:
        parse("a b")
    assert caught.value.param == "model"


@given(st.one_of(short_names, repo_names), st.one_of(short_names, repo_names))
def test_every_id_has_a_directory_of_its_own_directly_in_the_store(
    one: ShortName | RepoName, other: ShortName | RepoName
) -> None:
    name = directory_name(str(one))
    assert "/" not in name and not name.startswith(".") and "~" not in name
    assert (name == directory_name(str(other))) == (one == other)


@pytest.mark.parametrize("id", ["../x", "/etc", "a/../b", "./x.gguf", "hf.co/org/repo", "", "a/b/c"])
def test_what_cannot_name_a_directory(id: str) -> None:
    with pytest.raises(InvalidName):
        directory_name(id)


@given(st.text(alphabet=st.characters(exclude_characters="/\x00"), min_size=1, max_size=200))
@example("SmolLM2-135M-Instruct.Q4_1.gguf")
@example("--..__")
@example("My Model (v2) -- final.GGUF")
def test_a_file_of_any_name_gets_an_id_that_names_a_directory(name: str) -> None:
    id = local_id(Path("/models") / name)
    assert isinstance(parse(id), ShortName)
    assert directory_name(id) == id


def test_the_id_of_a_file_looks_like_its_name() -> None:
    assert local_id(Path("SmolLM2-135M-Instruct.Q4_1.gguf")) == "smollm2-135m-instruct.q4_1"


def test_a_path_has_one_id_however_its_accents_are_spelled() -> None:
    composed, decomposed = "mod\u00e8le.gguf", "mode\u0300le.gguf"
    assert local_id(Path(composed)) == local_id(Path(decomposed)) == "modele"
