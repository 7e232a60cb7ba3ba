"""Settings: which source beats which, and what a user is told about a file that is wrong."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from squish.config import keys, model_defaults, state
from squish.config.keys import KEYS, Key, sample
from squish.config.settings import Settings, resolve
from squish.errors import ConfigError


def read(home: Path, text: str | None = None, **variables: str) -> Settings:
    if text is not None:
        (home / ".squish").mkdir(exist_ok=True)
        (home / ".squish" / "config.toml").write_text(text, encoding="utf-8")
    return Settings.from_environment({"HOME": str(home)} | variables)


def test_the_environment_beats_the_file_and_the_file_the_default(tmp_path: Path) -> None:
    assert read(tmp_path).port == 11435
    assert read(tmp_path, "port = 8000\nkeep_alive = -1\n").port == 8000
    settings = read(tmp_path, SQUISH_PORT="9000")
    assert (settings.port, settings.keep_alive) == (9000, -1.0)


def test_what_is_remembered_is_read_only_to_show_where_values_come_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model_defaults.remember(tmp_path / ".squish", "m", {"seed": 5})
    read_from = list[Path]()
    read_table = state.table

    def counted(home: Path, name: str) -> dict[str, object]:
        read_from.append(home)
        return read_table(home, name)

    monkeypatch.setattr(state, "table", counted)
    resolved = resolve({"HOME": str(tmp_path)})
    assert read_from == []
    assert resolved.origins[-1].name == "models.m.seed"
    assert len(read_from) == 1


def test_every_key_can_be_set_in_the_file_and_in_the_environment(tmp_path: Path) -> None:
    examples: dict[str, tuple[str, object]] = {
        "text": ("abc", "abc"),
        "path": ("/models", Path("/models")),
        "address": ("https://hub.example/", "https://hub.example"),
        "secret": ("abc", "abc"),
        "whole": ("7", 7),
        "time": ("2m", 120.0),
        "flag": ("1", True),
    }
    for key in KEYS:
        text, value = examples.get(key.kind) or (key.choices[-1], key.choices[-1])
        assert getattr(read(tmp_path, "", **{key.variable: text}), key.field) == value
        in_toml = {"flag": "true", "whole": "7"}.get(key.kind, f'"{text}"')
        if key.in_file:
            assert getattr(read(tmp_path, f"{key.name} = {in_toml}"), key.field) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\n\nprot = 3\n", "line 3: prot is not a setting. Did you mean port?"),
        ("port = 'x'\n", "line 1: port must be a whole number."),
        ("# a\nport = 70000\n", "line 2: port must be between 0 and 65535."),
        ("offline = 1\n", "line 1: offline must be true or false."),
        ("keep_alive = true\n", "line 1: keep_alive must be a time: seconds, or a text"),
        ("keep_alive = 'soon'\n", "line 1: keep_alive must be a time: seconds, or a text"),
        ("keep_alive = nan\n", "line 1: keep_alive must be a time: seconds, or a text"),
        ("hub_endpoint = 'hub'\n", "line 1: hub_endpoint must be an address that begins with https://."),
        (
            "api_key = 'abc'\n",
            "line 1: api_key belongs in no file. Set the environment variable SQUISH_API_KEY instead.",
        ),
        ("[keys]\n\n'chat.new' = ''\n", "line 3: chat.new must be a text that is not empty."),
        ("keys = 3\n", "line 1: keys is a table. Write [keys] and its keys below."),
        ("[model_keep_alive]\n'qwen3:8b' = 'soon'\n", "line 2: qwen3:8b must be a time: seconds, or a text"),
        ("[draft]\n'qwen3:8b' = 3\n", "line 2: qwen3:8b must be a text that is not empty."),
        ("[engine]\nprompt_lookup = 'maybe'\n", "line 2: engine.prompt_lookup must be true or false"),
        ("[engine]\ncpu_precision = 'int4'\n", "line 2: engine.cpu_precision must be one of int8, float32"),
        (
            "[engine]\ncpu_precisoin = 'int8'\n",
            "line 2: engine.cpu_precisoin is not a setting. Did you mean engine.cpu",
        ),
        ("engine = 3\n", "line 1: engine is a table. Write [engine] and its keys below."),
        ("[key]\n", "line 1: key is not a setting. Did you mean keys?"),
        ("host = 'a'\nport = \n", "line 2: it is not TOML: Invalid value."),
        ("host = 'a", "line 1: it is not TOML: "),
        (f"host = {'[' * 100_000}", "it is nested too deeply."),
    ],
)
def test_a_wrong_file_is_one_sentence_with_the_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    assert message in f"{caught.value.message} {caught.value.hint or ''}"


def test_everything_that_is_wrong_is_found(tmp_path: Path) -> None:
    (tmp_path / ".squish").mkdir()
    (tmp_path / ".squish" / "config.toml").write_text("ports = 1\nhost = ''\noffline = 3\n")
    resolved = resolve({"HOME": str(tmp_path), "SQUISH_PORT": "http", "SQUISH_MAX_QUEUE": "7"})
    assert [error.param for error in resolved.errors] == ["ports", "host", "offline", "SQUISH_PORT"]
    assert [f"line {number}:" in resolved.errors[number - 1].message for number in (1, 2, 3)] == [True] * 3
    assert (resolved.settings.port, resolved.settings.max_queue) == (11435, 7)


def test_how_precisely_a_cpu_computes_is_set_in_the_table_of_the_engine(tmp_path: Path) -> None:
    assert read(tmp_path).cpu_precision == "int8"
    assert read(tmp_path, "[engine]\ncpu_precision = 'float32'\n").cpu_precision == "float32"
    assert read(tmp_path, SQUISH_CPU_PRECISION="int8").cpu_precision == "int8"


def test_the_bits_of_the_kv_cache_are_a_number_or_a_text(tmp_path: Path) -> None:
    assert read(tmp_path).kv_bits == "auto"
    for text, bits in (("8", "8"), ("'16'", "16"), ("'auto'", "auto")):
        assert read(tmp_path, f"[engine]\nkv_bits = {text}\n").kv_bits == bits
    assert read(tmp_path, SQUISH_KV_BITS="32").kv_bits == "32"
    for wrong in ("7", "true", "8.0"):
        with pytest.raises(ConfigError, match=r"line 2: engine\.kv_bits must be one of auto, 32, 16, 8"):
            read(tmp_path, f"[engine]\nkv_bits = {wrong}\n")


def test_guessing_is_set_for_all_and_drafts_for_single_models(tmp_path: Path) -> None:
    settings = read(tmp_path, "[engine]\nprompt_lookup = false\n\n[draft]\n'qwen3:8b' = 'qwen3:0.6b'\n")
    assert (settings.prompt_lookup, settings.draft) == (False, (("qwen3:8b", "qwen3:0.6b"),))
    assert read(tmp_path, SQUISH_PROMPT_LOOKUP="1").prompt_lookup


def test_titles_can_be_switched_off(tmp_path: Path) -> None:
    assert read(tmp_path).titles
    assert not read(tmp_path, "[chat]\ntitles = false\n").titles
    assert not read(tmp_path, SQUISH_CHAT_TITLES="0").titles


def test_entries_of_tables_tell_their_line(tmp_path: Path) -> None:
    read(tmp_path, "port = 1\n\n[model_keep_alive]\n'qwen3:8b' = '2h'\n")
    [origin] = [each for each in resolve({"HOME": str(tmp_path)}).origins if each.name.startswith("model_keep_alive")]
    assert (origin.shown, origin.source) == ("2h", f"{tmp_path / '.squish' / 'config.toml'}, line 4")


def test_a_file_that_cannot_be_read_is_no_traceback(tmp_path: Path) -> None:
    (tmp_path / ".squish" / "config.toml").mkdir(parents=True)
    with pytest.raises(ConfigError, match="cannot be read"):
        read(tmp_path)
    (tmp_path / ".squish" / "config.toml").rmdir()
    (tmp_path / ".squish" / "config.toml").write_bytes(b"host = '\xff'")
    with pytest.raises(ConfigError, match="UTF-8"):
        read(tmp_path)


@pytest.mark.parametrize("key", [key for key in KEYS if key.kind not in ("text", "path", "secret")])
def test_a_wrong_variable_is_named_with_what_it_can_be(tmp_path: Path, key: Key) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, **{key.variable: "maybe"})
    assert caught.value.param == key.variable
    assert key.variable in caught.value.message
    assert all(choice in caught.value.message for choice in key.choices)


def test_secrets_are_never_shown(tmp_path: Path) -> None:
    resolved = resolve({"HOME": str(tmp_path), "HF_TOKEN": "hf_hushhush", "SQUISH_API_KEY": "hushhush"})
    assert "hushhush" not in repr(resolved)
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, SQUISH_API_KEY="geheim-ü")
    assert "geheim" not in caught.value.message


def test_the_sample_changes_nothing_and_is_right_when_its_comments_are_taken_away(tmp_path: Path) -> None:
    plain = read(tmp_path)
    assert read(tmp_path, sample()) == plain
    awake = re.sub(r"^# (?=[\w\".:]+ = |\[)", "", sample(), flags=re.MULTILINE)
    assert set(tomllib.loads(awake)) == {key.name.partition(".")[0] for key in KEYS if key.in_file} | {
        table.name for table in keys.TABLES
    }
    assert read(tmp_path, awake).keys == (("chat.new", "ctrl+n"),)
    assert read(tmp_path, awake).model_keep_alive == (("smollm2:135m", 7200.0),)


def test_defaults_that_are_shown_are_those_that_count(tmp_path: Path) -> None:
    settings = read(tmp_path)
    for key in KEYS:
        if key.kind in ("whole", "time", "address"):
            value = getattr(settings, key.field)
            assert key.shown_default == ("none" if value is None else f"{value}".removesuffix(".0"))
