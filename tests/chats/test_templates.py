"""Variables of presets: what is replaced, what is asked for, what is refused."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from squish.chats import prompts, templates
from squish.chats.chats import Chats
from squish.chats.messages import ChatSettings
from squish.chats.presets import PRESETS
from squish.chats.templates import Around, Variable, filled, filled_text, taken_apart, uses, variables
from squish.errors import InvalidInput

DAY = date(2026, 5, 1)


def system(text: str, directory: Path, **values: str) -> str:
    return filled(ChatSettings(system=text), values, Around(directory, DAY, "smol")).system


def test_values_the_day_and_files_are_put_in_once(tmp_path: Path) -> None:
    (tmp_path / "rules.md").write_text("Use {{language}}.\n")
    text = "{{ language }}/{{language}} on {{date}}: {{file:rules.md}} {not this} {{}}"
    assert variables(text) == (Variable("language"),)
    assert system(text, tmp_path, language="{{date}}") == (
        "{{date}}/{{date}} on 2026-05-01: Use {{language}}. {not this} {{}}"
    )


@pytest.mark.parametrize(
    ("text", "values", "says"),
    [
        ("{{a}} {{b}}", {"a": "1"}, "No value is given for b"),
        ("{{a}}", {"a": "1", "c": "2"}, "No variable is named c"),
        ("{{a}} {{b|B}} {{c}}", {}, "No value is given for a, c"),
        ("{{input}}", {}, "stands for a message"),
        ("{{clipboard}}", {}, "clipboard cannot be read"),
        ("{{file:missing}}", {}, "missing cannot be read: No such file"),
        ("{{file:.}}", {}, "cannot be read"),
        ("{{file:binary}}", {}, "not UTF-8"),
    ],
)
def test_what_cannot_be_filled_is_named(text: str, values: dict[str, str], says: str, tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidInput, match=says):
        system(text, tmp_path, **values)


def test_defaults_count_where_nothing_is_given(tmp_path: Path) -> None:
    text = "{{language|English}}, {{ tone | kind and short }}, {{ empty|}}. {{language}}"
    assert variables(text) == (
        Variable("language", "English"),
        Variable("tone", "kind and short"),
        Variable("empty", ""),
    )
    assert system(text, tmp_path, language="Dutch") == "Dutch, kind and short, . Dutch"
    assert variables("{{a}} {{a|1}}") == (Variable("a", "1"),), "a default counts wherever it stands"


def test_what_is_known_already_is_put_in_once(tmp_path: Path) -> None:
    around = Around(tmp_path, DAY, "smol", "{{date}} {{x}}", "{{model}}")
    text = "{{model}} on {{date}}: {{input}} / {{ clipboard }}"
    assert variables(text) == () and uses(text, "input") and not uses("{{ inputs }}", "input")
    assert filled_text(text, {}, around) == "smol on 2026-05-01: {{date}} {{x}} / {{model}}"


@pytest.mark.parametrize("text", ["{{ user.name }}", "{{#each}}", "{ {x} }", "{{{x}}", "{% if x %}", "{{x|\n}}"])
def test_what_is_not_a_variable_stays(text: str, tmp_path: Path) -> None:
    found = variables(text)
    assert found in ((), (Variable("x"),))
    assert filled_text(text, {"x": "y"}, Around(tmp_path, DAY, "m")) == ("{y" if found else text)


def test_prompt_templates_come_by_name_or_from_a_file(tmp_path: Path) -> None:
    chats = Chats(tmp_path / "chats.db")
    chats.keep_prompt("translate", "To {{language|English}}: {{input}}")
    assert list(chats.prompts()) == ["translate"]
    chats.close()
    assert prompts.named(tmp_path, "translate").startswith("To {{language")
    (tmp_path / "mine.md").write_text("Sum up:\n{{input}}\n")
    assert prompts.named(tmp_path, str(tmp_path / "mine.md")) == "Sum up:\n{{input}}"
    with pytest.raises(InvalidInput, match="No template is named none") as refused:
        prompts.named(tmp_path, "none")
    assert "translate" in (refused.value.hint or "")
    for name in ("", "save", "rm", "two words", "a\x1b", "-x"):
        with pytest.raises(InvalidInput, match="cannot be the name" if name else "The template has no name"):
            prompts.checked_name(name)


@pytest.mark.parametrize(
    ("template", "text", "asked"),
    [
        ("Sum up: {{input}}", "this", "Sum up: this"),
        ("Sum up:", "this", "Sum up:\n\nthis"),
        ("Sum up:", " \n", "Sum up:"),
        ("Sum up:", None, "Sum up:"),
        ("{{ input }}", "{{x}}", "{{x}}"),
    ],
)
def test_an_input_is_in_its_place_or_behind(template: str, text: str | None, asked: str, tmp_path: Path) -> None:
    assert prompts.message(template, {}, Around(tmp_path, DAY, "m", text)) == asked


def test_values_stand_behind_the_name() -> None:
    assert taken_apart("my own", PRESETS) == ("my own", {})
    assert taken_apart('my own a=1 "b=two words"', PRESETS) == ("my own", {"a": "1", "b": "two words"})
    for line, says in (("x a=1 b", "b is not name=value"), ("x a='1", "quote")):
        with pytest.raises(InvalidInput, match=says):
            taken_apart(line, PRESETS)


def test_an_archived_chat_that_is_asked_again_is_back_in_the_list(tmp_path: Path) -> None:
    chats = Chats(tmp_path / "chats.db")
    id = chats.create("m", title="one")
    _, answer = chats.ask(id, None, "one", "m")
    chats.archive(id, True)
    chats.finish(answer, "1")
    assert chats.recent() == [], "an answer that ends is not a question"
    chats.ask(id, answer, "two", "m")
    assert [each.id for each in chats.recent()] == [id]
    chats.close()


def test_of_a_line_the_words_before_the_values_are_the_name() -> None:
    assert templates.taken_apart("my preset a=1 'b=two words'", {}) == ("my preset", {"a": "1", "b": "two words"})
    assert templates.taken_apart("a=1", {"a=1": None}) == ("a=1", {}), "a preset may be named so"
    assert templates.taken_apart("my 'preset", {}) == ("my 'preset", {}), "without values it is a name"
    with pytest.raises(InvalidInput, match="not closed"):
        templates.taken_apart("my 'preset a=1", {})


def test_what_has_variables_says_so_and_an_unknown_one_names_those_there_are() -> None:
    assert templates.has_variables("a {{b}}") and not templates.has_variables("a {b}")
    for text, hint in (("{{b}} {{c}}", "Variables: b, c."), ("none", "There are no variables.")):
        with pytest.raises(InvalidInput, match="No variable is named d, e") as refused:
            templates.check_values([text], dict.fromkeys("bcde" if "b" in text else "de", ""))
        assert refused.value.hint == hint
