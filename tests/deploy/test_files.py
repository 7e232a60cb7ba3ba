"""The files of deploy/ name what there is: metrics, options, paths."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from squish.api import openapi
from squish.api.metrics import Metrics
from squish.commands.serving.serve import serve

DEPLOY = Path(__file__).parents[2] / "deploy"
OPTIONS = {name for parameter in serve.params for name in parameter.opts}


class Nothing:
    def status(self) -> list[object]:
        return []


def test_the_dashboard_shows_metrics_that_there_are() -> None:
    text = (DEPLOY / "grafana.json").read_text()
    asked = {re.sub(r"_bucket$", "", name) for name in re.findall(r"squish_\w+", text)}
    known = Metrics(Nothing()).text().decode()  # type: ignore[arg-type]
    assert [name for name in asked if f"# TYPE {name} " not in known] == []
    ids = [panel["id"] for panel in json.loads(text)["panels"]]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("name", ["compose.yaml", "kubernetes.yaml", "litellm.yaml"])
def test_what_is_yaml_can_be_read(name: str) -> None:
    assert all(yaml.safe_load_all((DEPLOY / name).read_text()))


def test_options_and_probes_are_those_of_the_server() -> None:
    paths = set(openapi.openapi()["paths"])
    for name in ("Containerfile", "kubernetes.yaml"):
        text = (DEPLOY / name).read_text()
        serving = "\n".join(line for line in text.splitlines() if "serve" in line)
        assert set(re.findall(r"--[a-z][a-z-]+", serving)) <= OPTIONS
        assert set(re.findall(r"path: (/\w+)", text)) <= paths
