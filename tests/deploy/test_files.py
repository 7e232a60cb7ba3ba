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


def test_constraints_with_hashes_go_to_pip_without_them() -> None:
    """With hashes it refuses the folder that is to be installed."""
    text = (DEPLOY / "Containerfile").read_text()
    assert "--hash" in (DEPLOY.parent / "requirements.lock").read_text()
    assert "-c /source/requirements.lock" not in text and "sed -e '/--hash/d'" in text


def test_what_is_mounted_belongs_to_the_user_who_serves() -> None:
    [made] = re.findall(r"mkdir -p (.*?) \\", (DEPLOY / "Containerfile").read_text())
    service = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["squish-a"]
    assert {each.partition(":")[2] for each in service["volumes"]} <= set(made.split())


def test_each_pod_gets_the_model_into_its_own_volume() -> None:
    _, pods = yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text())
    spec = pods["spec"]["template"]["spec"]
    [first], [then] = spec["initContainers"], spec["containers"]
    assert first["args"][0] == "pull" and first["volumeMounts"] == then["volumeMounts"]
    assert {first["imagePullPolicy"], then["imagePullPolicy"]} == {"IfNotPresent"}  # the image is built by hand


def test_litellm_has_two_servers_for_one_name_and_a_key() -> None:
    config = yaml.safe_load((DEPLOY / "litellm.yaml").read_text())
    assert len({each["litellm_params"]["api_base"] for each in config["model_list"]}) == 2
    assert len({each["model_name"] for each in config["model_list"]}) == 1
    assert config["general_settings"]["master_key"].startswith("os.environ/")  # it does not start without
