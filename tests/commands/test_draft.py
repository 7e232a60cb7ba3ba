"""`--draft`: whom it guesses for, and what is said where it cannot."""

from __future__ import annotations

from dataclasses import replace

import pytest
from click.testing import CliRunner

from squish.commands.serving.draft import with_draft
from squish.commands.serving.serve import serve
from squish.config.settings import Settings
from squish.errors import ConfigError, ModelNotFound
from tests.conftest import MODEL


def test_it_guesses_for_the_models_named_and_the_file_for_the_others(real_settings: Settings) -> None:
    settings = replace(real_settings, draft=(("third:8b", "other:1b"),))
    assert with_draft(settings, [MODEL], None) is settings
    named = with_draft(settings, ["not-yet:8b"], MODEL)
    assert dict(named.draft) == {"third:8b": "other:1b", "not-yet:8b": MODEL}
    with pytest.raises(ModelNotFound):
        with_draft(settings, [MODEL], "nope:1b")


def test_a_draft_that_cannot_be_one_is_refused_before_a_model_is_loaded(real_settings: Settings) -> None:
    with pytest.raises(ConfigError, match=f"{MODEL} cannot be the draft model of {MODEL}: it is that model"):
        with_draft(real_settings, ["not-yet:8b", MODEL.upper()], MODEL)
    of_the_file = replace(real_settings, draft=((MODEL, "other:1b"), ("third:8b", "other:1b")))
    with pytest.raises(ConfigError, match=f"The draft model of {MODEL}, other:1b, is not installed"):
        with_draft(of_the_file, ["third:8b", MODEL], None)


def test_a_server_needs_a_model_to_guess_for() -> None:
    done = CliRunner().invoke(serve, ["--draft", MODEL])
    assert (done.exit_code, done.output.splitlines()[-1]) == (
        2,
        "Error: --draft guesses for the MODELs named, and none is.",
    )
