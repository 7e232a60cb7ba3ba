"""Where traces go: what the variables and the setting say, and what is wrong with them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from squish.api.telemetry.opening import NEEDED, open_collector, traces_endpoint
from squish.config.settings import Settings

GENERAL, TRACES = "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"


def settings(endpoint: str | None = None, offline: bool = False) -> Settings:
    return Settings(home=Path(), cache_dir=Path(), otlp_endpoint=endpoint, offline=offline)


@pytest.mark.parametrize(
    ("setting", "variables", "endpoint"),
    [
        (None, {}, None),
        (None, {GENERAL: " "}, None),
        ("http://c:4318", {}, "http://c:4318/v1/traces"),
        ("http://c:4318", {GENERAL: "http://d:1/"}, "http://d:1/v1/traces"),
        (None, {GENERAL: "http://d:1/base"}, "http://d:1/base/v1/traces"),
        (None, {GENERAL: "http://d:1", TRACES: "http://e:2/as/it/is"}, "http://e:2/as/it/is"),
        ("http://c:4318", {"OTEL_SDK_DISABLED": "True"}, None),
        ("http://c:4318", {"OTEL_TRACES_EXPORTER": "none"}, None),
    ],
)
def test_the_variables_beat_the_setting(
    setting: str | None, variables: Mapping[str, str], endpoint: str | None
) -> None:
    assert traces_endpoint(settings(setting), variables) == endpoint


@pytest.mark.parametrize(
    ("variables", "offline", "said"),
    [
        ({GENERAL: "localhost:4317"}, False, "'localhost:4317/v1/traces' is not an address that begins with http://"),
        ({GENERAL: "http://u:hush@:x"}, False, "is not an address"),
        ({GENERAL: "http://c:1", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, False, "asks for grpc"),
        ({GENERAL: "http://c:1"}, True, "SQUISH_OFFLINE is set"),
    ],
)
def test_variables_that_cannot_be_used_are_one_warning(
    variables: Mapping[str, str], offline: bool, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert open_collector(settings(offline=offline), variables) is None
    assert said in caplog.text and "hush" not in caplog.text


@pytest.mark.parametrize("parts", [(), ("opentelemetry",), ("opentelemetry", "exporter", "otlp")])
def test_a_missing_package_is_named(
    parts: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Also where other programs have brought parts of OpenTelemetry along."""
    tmp_path.joinpath(*parts).mkdir(parents=True, exist_ok=True)
    for name in [each for each in sys.modules if each.partition(".")[0] == "opentelemetry"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert open_collector(settings(), {GENERAL: "http://c:1"}) is None
    assert f"Requests are not traced: {NEEDED}." in caplog.text


def test_who_traces_nothing_does_not_load_it() -> None:
    program = (
        "import sys, squish.api.serving.server\n"
        "from pathlib import Path; from squish.config.settings import Settings; from squish.runtime import Runtime\n"
        "from squish.api.serving.options import Options; from squish.api.app import build_app\n"
        "build_app(Runtime(Settings(home=Path(), cache_dir=Path())), Options())\n"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, env={}, check=True)
    assert "opentelemetry" not in done.stdout.split()
