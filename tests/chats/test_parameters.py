"""How a chat asks: formats as people write them, presets by name, and what wins over what."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import msgspec
import pytest

from squish.chats.answer_format import from_command_line, response_format, tidied
from squish.chats.chats import Chats
from squish.chats.messages import Chat, ChatSettings
from squish.chats.presets import PRESETS, named
from squish.chats.recorder import settings_of
from squish.commands.answers.run import run
from squish.errors import InvalidInput
from squish.generation import ChatPrompt, ResponseFormat, SamplingParams
from squish.tui.chat.conversation import Conversation
from squish.tui.chat.parameters import PARAMETERS, Parameter, with_value

SCHEMA = '{"type": "object", "properties": {"age": {"type": "integer"}}}'
DEFAULTS = ChatSettings()
SHORT = ChatSettings(max_tokens=512)


@pytest.mark.parametrize(
    ("text", "kind", "held"),
    [
        ("json", "json_object", ""),
        (SCHEMA, "json_schema", json.loads(SCHEMA)),
        ('{\n "type":\r\n "string"}', "json_schema", {"type": "string"}),
        ('{"const": "a\u2028b"}', "json_schema", {"const": "a\u2028b"}),
        (r"regex:\d+", "regex", r"\d+"),
        ("regex:a\nb", "regex", r"a\nb"),
    ],
)
def test_a_format_is_what_the_answer_is_held_to(text: str, kind: str, held: object) -> None:
    settings = ChatSettings(response_format=tidied(text))
    assert "\n" not in settings.response_format, "a field of the panel has one line"
    wanted = settings.sampling().response_format
    assert wanted is not None
    assert wanted.kind == kind
    assert (json.loads(wanted.text) if kind == "json_schema" else wanted.text) == held


def test_text_is_no_format() -> None:
    assert ChatSettings(response_format=tidied(" text ")) == DEFAULTS
    assert DEFAULTS.sampling().response_format is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("xml", "must be text, json, a JSON schema or regex:"),
        ("regex:", "must be text, json, a JSON schema or regex:"),
        ("[1]", "must be text, json, a JSON schema or regex:"),
        ('{"type": ', "is not a JSON schema: "),
        ('{"a":' * 200 + "1" + "}" * 200, "is nested more than 100 deep"),
        ('{"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}', "leads back to itself"),
    ],
)
def test_what_is_not_a_format_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason) as refused:
        response_format(text)
    assert (refused.value.param or "").startswith("response_format")


def test_a_format_is_kept_on_one_line() -> None:
    assert tidied(" regex:a\r\nb\n\nc ") == r"regex:a\r\nb\n\nc"
    assert tidied('{\r\n\n"type": 1}\n') == '{ "type": 1}'
    assert response_format("text") is None
    with pytest.raises(InvalidInput) as refused:
        response_format("xml")
    assert refused.value.hint == "A schema is a JSON object; regex: is followed by a regular expression."


def test_on_a_command_line_a_schema_is_the_name_of_a_file(tmp_path: Path) -> None:
    file, link = tmp_path / "schema.json", tmp_path / "link"
    file.write_text(f"\ufeff\n{SCHEMA}\n", encoding="utf-8")
    link.symlink_to(file)
    assert from_command_line(str(file)) == from_command_line(str(link)) == from_command_line(SCHEMA) == SCHEMA
    assert [from_command_line(each) for each in ("text", "json", "regex:a")] == ["", "json", "regex:a"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, r"cannot be read: No such file or directory\.$"),
        (b"\xff", r"is not UTF-8 text\.$"),
        (b"[1]", r"is not a JSON schema, which is an object\.$"),
        (b" " * 1_000_001, r"cannot be read: \w"),
    ],
)
def test_a_file_that_has_no_schema_is_named(tmp_path: Path, content: bytes | None, says: str) -> None:
    file = tmp_path / "x"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InvalidInput, match=f"^--format: {re.escape(str(file))} {says}") as refused:
        from_command_line(str(file))
    assert refused.value.param == "--format"
    if "cannot" in says:
        assert refused.value.hint == "--format takes text, json, regex:… or a file with a JSON schema."


def test_of_a_long_format_the_beginning_is_named() -> None:
    for length, shown in ((80, "{" + "x" * 79), (81, "{" + "x" * 78 + "…")):
        with pytest.raises(InvalidInput, match="^" + re.escape(f"--format {shown}: response_format is not a JSON")):
            from_command_line(("{" + "x" * 100)[:length])
    with pytest.raises(InvalidInput, match=r"^--format regex:: response_format must be"):
        from_command_line("regex:")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("repetition_penalty", 1.2),
        ("presence_penalty", -0.5),
        ("frequency_penalty", 0.5),
        ("stop", ("a",)),
        ("seed", 3),
    ],
)
def test_a_chat_asks_with_what_is_set(field: str, value: object) -> None:
    settings = msgspec.structs.replace(DEFAULTS, **{field: value})
    assert getattr(settings.sampling(), field) == value
    others = set(SamplingParams.__struct_fields__) - {field}
    assert all(getattr(settings.sampling(), each) == getattr(DEFAULTS.sampling(), each) for each in others)


WRITTEN = {
    "temperature": ("0.2", 0.2),
    "top_p": ("0.5", 0.5),
    "top_k": ("40", 40),
    "min_p": ("0.1", 0.1),
    "repetition_penalty": ("1.2", 1.2),
    "presence_penalty": ("0.5", 0.5),
    "frequency_penalty": ("-0.5", -0.5),
    "max_tokens": ("99", 99),
    "context": ("4096", 4096),
    "kv_bits": ("8", 8),
    "seed": ("7", 7),
    "stop": (r"###|\nUser:", ("###", "\nUser:")),
    "thinking": ("off", False),
    "response_format": ("json", ResponseFormat("json_object", field="response_format")),
    "system": ("Be brief", "Be brief"),
}


@pytest.mark.parametrize("each", PARAMETERS, ids=lambda each: each.name)
def test_every_parameter_of_the_panel_reaches_the_request(each: Parameter, tmp_path: Path) -> None:
    text, value = WRITTEN[each.name]
    chats = Chats(tmp_path / "chats.db")
    talk = Conversation(chats, "smol", float, settings=with_value(ChatSettings(), each.name, text))
    request = talk.request(talk.ask("q"))
    (prompt,) = request.prompts
    assert isinstance(prompt, ChatPrompt)
    system = [message.content for message in prompt.messages if message.role == "system"]
    asked = {"thinking": prompt.thinking, "system": "".join(system), "kv_bits": request.kv_bits}
    assert (asked[each.name] if each.name in asked else getattr(request.sampling, each.name)) == value
    chats.close()


def test_chats_that_were_saved_before_are_read() -> None:
    old = b'{"temperature":0.2,"stop":["###"],"thinking":false}'
    assert msgspec.json.decode(old, type=ChatSettings) == ChatSettings(0.2, stop=("###",), thinking=False)


def test_presets_by_name(tmp_path: Path) -> None:
    assert named(tmp_path, "greedy") == PRESETS["greedy"]
    assert not list(tmp_path.iterdir()), "asking for one that comes with the program makes no file"
    own = ChatSettings(0.3, repetition_penalty=1.1, response_format="json")
    chats = Chats(tmp_path / "chats.db")
    chats.keep_preset("mine", own)
    chats.keep_preset("greedy", own)
    chats.close()
    assert named(tmp_path, "mine") == named(tmp_path, "greedy") == own
    with pytest.raises(InvalidInput, match="No preset is named none") as refused:
        named(tmp_path, "none")
    assert "balanced, precise, creative, greedy, mine" in (refused.value.hint or "")


def test_the_help_names_the_presets_that_there_are() -> None:
    (option,) = [each for each in run.params if each.name == "preset"]
    assert f"{', '.join(PRESETS)}, " in str(option.to_info_dict()["help"])


def test_what_is_given_wins_over_a_preset_and_a_preset_over_the_chat() -> None:
    chat = Chat(1, "", "smol", ChatSettings(0.9, top_k=5, max_tokens=100, system="Be brief"), "", None, 0, 0)
    preset = ChatSettings(0.3, repetition_penalty=1.1)
    assert settings_of(chat, {"repetition_penalty": 1.5}, SHORT, preset) == ChatSettings(
        0.3, repetition_penalty=1.5, max_tokens=100, system="Be brief"
    )
    assert settings_of(None, {}, SHORT, preset) == msgspec.structs.replace(preset, max_tokens=512)
    assert settings_of(None, {}, SHORT, ChatSettings(max_tokens=9, system="Yes")) == ChatSettings(
        max_tokens=9, system="Yes"
    )
    assert settings_of(None, {"response_format": ""}, SHORT, ChatSettings(response_format="json")).response_format == ""


def test_a_schema_comes_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "person.schema.json"
    file.write_text(SCHEMA.replace(" ", "\n"), encoding="utf-8-sig")
    assert json.loads(from_command_line(str(file))) == json.loads(SCHEMA)
    assert from_command_line("json") == "json"
    assert from_command_line(r"regex:\d+") == r"regex:\d+"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"[1]", "not a JSON schema"),
        (b"json", "not a JSON schema"),
        (b"{", "not a JSON schema"),
        (b"\xff", "not UTF-8"),
    ],
)
def test_a_file_that_is_not_a_schema_is_refused_by_name(tmp_path: Path, content: bytes, reason: str) -> None:
    file = tmp_path / "a.json"
    file.write_bytes(content)
    with pytest.raises(InvalidInput, match=reason) as refused:
        from_command_line(str(file))
    assert "a.json" in refused.value.message


def test_what_is_not_a_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in (tmp_path, tmp_path / "pipe", tmp_path / "none.json", "a\0b"):
        with pytest.raises(InvalidInput, match="cannot be read"):
            from_command_line(str(name))
