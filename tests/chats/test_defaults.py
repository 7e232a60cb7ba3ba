"""How a new chat asks: what the program, the screen and config.toml say of a model, and which of them goes first."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from squish.chats import defaults
from squish.chats.defaults import FILE, SCREEN, Defaults
from squish.chats.messages import ChatSettings
from squish.chats.presets import PRESETS
from squish.config import model_defaults
from squish.config.settings import Settings, resolve
from squish.errors import ConfigError
from squish.generation import MAX_STOPS

MODEL = "smollm2:135m"
PLAIN = ChatSettings()


def settings(home: Path, table: str = "", model: str = MODEL) -> Settings:
    """Of a config.toml with these lines for a model."""
    (home / ".squish").mkdir(exist_ok=True)
    (home / ".squish" / "config.toml").write_text(f'[models."{model}"]\n{table}\n')
    return Settings.from_environment({"HOME": str(home)})


def test_every_parameter_of_a_chat_can_be_a_default() -> None:
    assert set(model_defaults.NAMES) == {*ChatSettings.__struct_fields__, "preset"}


@pytest.mark.parametrize("name", [*model_defaults._NUMBERS, *model_defaults._WHOLE])
def test_whatever_the_file_may_say_can_be_asked_with(name: str) -> None:
    for value in {**model_defaults._NUMBERS, **model_defaults._WHOLE}[name]:
        assert model_defaults.wrong(MODEL, {name: value}) is None
        assert getattr(msgspec.structs.replace(PLAIN, **{name: value}).sampling(), name) == value
    assert model_defaults.MAX_STOPS == MAX_STOPS


def test_the_file_sets_parameters_behind_a_preset_and_says_where_each_comes_from(tmp_path: Path) -> None:
    text = 'preset = "creative"\ntop_p = 0.5\nstop = ["###"]\nthinking = false\nsystem = "Be brief"\ntemperature = 1'
    known = settings(tmp_path, text)
    found = defaults.of_model(known, MODEL, lambda: PRESETS)
    assert found.settings == ChatSettings(1.0, 0.5, stop=("###",), thinking=False, system="Be brief")
    assert found.sources == dict.fromkeys(("temperature", "top_p", "stop", "thinking", "system"), FILE)
    assert defaults.of_model(known, "qwen3:8b", lambda: PRESETS) == Defaults(), "another model is as it was"
    origins = {each.name: (each.shown, each.source) for each in resolve({"HOME": str(tmp_path)}).origins}
    assert origins[f"models.{MODEL}.top_p"] == ("0.5", f"{known.config_path}, line 3")


def test_the_bits_of_a_kv_cache_are_those_of_the_model_before_those_of_all(tmp_path: Path) -> None:
    known = settings(tmp_path, "kv_bits = 8")
    assert [model_defaults.kv_bits_of(known, each) for each in (MODEL, "qwen3:8b")] == [8, None]
    assert defaults.of_model(known, MODEL, lambda: PRESETS).settings.kv_bits == 8
    for_all = replace(settings(tmp_path), kv_bits="32")
    assert model_defaults.kv_bits_of(for_all, MODEL) == 32
    defaults.keep(for_all, MODEL, ChatSettings(kv_bits=16), PRESETS)
    assert [model_defaults.kv_bits_of(for_all, each) for each in (MODEL, "qwen3:8b")] == [16, 32]


def test_what_is_kept_on_the_screen_goes_behind_the_file(tmp_path: Path) -> None:
    known = settings(tmp_path, "temperature = 0.1")
    wanted = msgspec.structs.replace(PLAIN, temperature=1.5, seed=7, stop=("a", "b"), thinking=True)
    defaults.keep(known, MODEL, wanted, PRESETS)
    found = defaults.of_model(known, MODEL, lambda: PRESETS)
    assert found.settings == msgspec.structs.replace(wanted, temperature=0.1)
    assert (found.sources["temperature"], found.sources["seed"]) == (FILE, SCREEN)
    assert defaults.fixed(known, MODEL) == ("temperature",)
    assert "seed 7 (set on the screen" in defaults.described(found)
    assert f"models.{MODEL}.seed" in {each.name for each in resolve({"HOME": str(tmp_path)}).origins}
    assert defaults.forget(known, MODEL) and not defaults.forget(known, MODEL)
    assert defaults.of_model(known, MODEL, lambda: PRESETS).settings == msgspec.structs.replace(PLAIN, temperature=0.1)


def test_settings_as_they_are_without_any_preset_are_kept_as_none(tmp_path: Path) -> None:
    known = Settings(home=tmp_path, cache_dir=tmp_path)
    defaults.keep(known, MODEL, PLAIN, {"plain": PLAIN, **PRESETS})
    assert model_defaults.remembered(tmp_path) == {}
    defaults.keep(known, MODEL, PRESETS["creative"], PRESETS)
    assert model_defaults.remembered(tmp_path)[MODEL].values == {"preset": "creative"}
    defaults.keep(known, MODEL, ChatSettings(0.123), PRESETS)
    assert model_defaults.remembered(tmp_path)[MODEL].values == {"temperature": 0.123}


def test_what_is_set_is_described_on_one_line() -> None:
    set_so = Defaults(
        ChatSettings(0.2, system="Be  brief\nand kind", stop=("x" * 40,)), {"temperature": FILE, "system": SCREEN}
    )
    assert defaults.described(set_so) == f"temperature 0.2 ({FILE}), system Be brief and kind ({SCREEN})"
    for length, shown in ((40, "x" * 40), (41, "x" * 39 + "…")):
        long = Defaults(ChatSettings(system="x" * length), {"system": FILE})
        assert defaults.described(long) == f"system {shown} ({FILE})"
    assert defaults.described(Defaults()) == ""


def test_of_presets_that_are_alike_the_one_that_was_used_is_kept(tmp_path: Path) -> None:
    known = Settings(home=tmp_path, cache_dir=tmp_path)
    presets = {**PRESETS, "first": ChatSettings(0.3), "second": ChatSettings(0.3)}
    for preferred, name in (((), "first"), (("", "second"), "second"), (("greedy", "gone", "second"), "second")):
        defaults.keep(known, MODEL, ChatSettings(0.3), presets, preferred)
        assert model_defaults.remembered(tmp_path)[MODEL].values == {"preset": name}
        assert defaults.of_model(known, MODEL, lambda: presets).preset == name


def test_a_preset_is_kept_by_its_name_and_changes_with_it(tmp_path: Path) -> None:
    known = Settings(home=tmp_path, cache_dir=tmp_path)
    presets = {**PRESETS, "mine": ChatSettings(0.3, top_k=9)}
    defaults.keep(known, MODEL, ChatSettings(0.3, top_k=9, system="Be brief"), presets)
    presets["mine"] = ChatSettings(0.4, top_k=9)
    found = defaults.of_model(known, MODEL, lambda: presets, ChatSettings(max_tokens=512))
    assert found.settings == ChatSettings(0.4, top_k=9, system="Be brief", max_tokens=512)
    assert found.sources["top_k"] == f"preset mine, {SCREEN}"


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ("temperature = 3", "line 1: smollm2:135m needs a number from 0 to 2 for temperature"),
        ("temprature = 1", "did you mean temperature"),
        ("top_k = 1.5", "needs a whole number"),
        ("thinking = 1", "true or false"),
        ('stop = "a"', "a list of"),
        ("system = 1", "a text"),
        ("max_tokens = true", "a whole number"),
        ("context = 1", "a whole number of at least 2 for context"),
        ("kv_bits = 4", "needs 32, 16 or 8 for kv_bits"),
        ('kv_bits = "8"', "needs 32, 16 or 8 for kv_bits"),
    ],
)
def test_what_is_wrong_in_the_file_is_named(table: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=says):
        settings(tmp_path, table)


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ('preset = "none"', "no preset is named none"),
        ('preset = "asks"', "No value is given for language"),
        ('response_format = "xml"', r"^config.toml, smollm2:135m: response_format must be"),
    ],
)
def test_what_cannot_be_used_is_an_error_that_names_the_model(table: str, says: str, tmp_path: Path) -> None:
    presets = {
        **PRESETS,
        "asks": ChatSettings(system="{{language}}"),
        "fine": ChatSettings(system="{{language|Dutch}}"),
    }
    with pytest.raises(ConfigError, match=says):
        defaults.of_model(settings(tmp_path, table), MODEL, lambda: presets)
    assert defaults.of_model(settings(tmp_path, 'preset = "fine"'), MODEL, lambda: presets).settings.system == "Dutch"


def test_an_error_says_where_the_value_was_set(tmp_path: Path) -> None:
    known = Settings(home=tmp_path, cache_dir=tmp_path)
    defaults.keep(known, MODEL, ChatSettings(response_format="xml"), PRESETS)
    with pytest.raises(ConfigError, match=f"^{re.escape(SCREEN)}, {MODEL}: response_format must be") as raised:
        defaults.of_model(known, MODEL, lambda: PRESETS)
    assert raised.value.hint and raised.value.param == "response_format"


def test_another_model_before_the_first_message_keeps_what_the_user_changed() -> None:
    before, after = Defaults(ChatSettings(0.2, top_k=5)), Defaults(ChatSettings(1.0, min_p=0.1))
    assert defaults.followed(ChatSettings(0.2, top_k=7), before, after) == ChatSettings(1.0, top_k=7, min_p=0.1)


def test_a_damaged_memory_is_none(tmp_path: Path) -> None:
    (tmp_path / "state.toml").write_text('[model_defaults."smollm2:135m"]\ntemperature = "hot"\n')
    known = Settings(home=tmp_path, cache_dir=tmp_path)
    assert defaults.of_model(known, MODEL, lambda: PRESETS) == Defaults()
