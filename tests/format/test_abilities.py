"""What a model can do, judged without loading it: the same that mlx-lm finds when it opens the tokenizer."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from squish.format import abilities, model_directory
from squish.format.abilities import chat_templates, judge, kind_in, read

MARKS = [
    "<minimax:tool_call>", "<|tool_call><tool_call|>", "<|tool_call>", "<start_function_call>", "<longcat_tool_call>",
    "<arg_key>",
    "<|tool_list_start|>", "<|tool_call_start|>", "<tool_call>\\n<function=", "<tool_call>\n<function=",
    "<|tool_calls_section_begin|>", '<function name="a"><param name="b">', '<function name="', "[TOOL_CALLS]",
    "<atem:function_calls>", "<tool_call>{{ tool_call.name }}", "<tool_call>", "tools", "",
]  # fmt: skip
VOCABULARIES = [
    [], ["<think>", "</think>"], ["<think>"], ["<longcat_think>", "</longcat_think>"],
    ["<|think:start|>", "<|think:end|>"],
    ["<|channel>", "<channel|>"], ["<|tool_call_start|>", "<|tool_call_end|>"],
]  # fmt: skip


def vocabulary(tokens: list[str]) -> bytes:
    return json.dumps({"added_tokens": [{"content": token} for token in tokens]}).encode()


def opened(template: str, tokens: list[str]) -> Any:
    """As much of a tokenizer as mlx-lm looks at."""
    return SimpleNamespace(
        chat_template=template,
        get_vocab=lambda: {token: at for at, token in enumerate(tokens)},
        encode=lambda text, add_special_tokens=True: [0],
    )


@pytest.mark.parametrize("template", MARKS)
@pytest.mark.parametrize("tokens", VOCABULARIES, ids=str)
def test_tools_as_mlx_lm_finds_them(template: str, tokens: list[str]) -> None:
    from mlx_lm import tokenizer_utils

    theirs = tokenizer_utils._infer_tool_parser(opened(template, tokens)) is not None
    assert judge(template, vocabulary(tokens)).tools is theirs


@pytest.mark.parametrize("tokens", VOCABULARIES, ids=str)
def test_thoughts_as_mlx_lm_finds_them(tokens: list[str]) -> None:
    from mlx_lm import tokenizer_utils

    theirs = tokenizer_utils._infer_thinking(opened("", tokens))[0] is not None
    template = "{% if enable_thinking %}" + "".join(tokens)
    assert judge(template, vocabulary(tokens)).thinking is theirs


def test_a_model_that_never_thinks_and_one_that_always_does() -> None:
    leftover = judge("{{ messages }}", vocabulary(["<think>", "</think>"]))  # in the vocabulary, not in the template
    assert not leftover.thinking
    assert judge("<|start|>assistant<|channel|>analysis", b"{}").thinking
    assert judge(None, vocabulary(["<|tool_call_start|>", "<|tool_call_end|>"])) == judge(None, b"")


SEVERAL = [{"name": name, "template": f"{{{{ {name} }}}}"} for name in ("rag", "default", "tool_use")]


@pytest.mark.parametrize(
    ("config", "names", "kind"),
    [
        ({}, [], "completion"),
        ({"chat_template": None}, [], "completion"),
        ({"chat_template": "{{ messages }}"}, ["default"], "chat"),
        ({"chat_template": SEVERAL}, ["default", "rag", "tool_use"], "chat"),
        ({"chat_template": [{"name": 3}, "x"]}, [], "completion"),
        ({"chat_template_type": "deepseek_v32"}, [], "chat"),  # mlx-lm has the code of that one
    ],
    ids=str,
)
def test_a_model_that_writes_chats_only_with_a_template(
    tmp_path: Path, config: dict[str, Any], names: list[str], kind: str
) -> None:
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    assert sorted(chat_templates(tmp_path)) == names
    assert kind_in(tmp_path, "chat") == kind_in(tmp_path, "completion") == kind
    assert kind_in(tmp_path, "embedding") == "embedding"
    assert read(tmp_path).chat is bool(names)


def test_a_tokenizer_is_read_again_only_when_its_file_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_from, real = list[Path](), model_directory.read_object

    def counted(path: Path, name: str) -> dict[str, Any]:
        read_from.append(path)
        return real(path, name)

    monkeypatch.setattr(abilities, "read_object", counted)
    config = tmp_path / "tokenizer_config.json"
    config.write_text(json.dumps({"chat_template": "one"}))
    assert [kind_in(tmp_path, "chat") for _ in range(3)] == ["chat"] * 3
    assert read_from == [config]
    config.write_text(json.dumps({}))
    assert [kind_in(tmp_path, "chat") for _ in range(3)] == ["completion"] * 3
    assert read_from == [config, config]
