"""The files of deploy/ name what there is: metrics, options, paths."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from squish.api import openapi
from squish.api.metrics import Metrics
from squish.commands.serving.serve import serve
from squish.config.keys import DEFAULT_PORT, KEYS
from squish.generation import Finished, Timings, Usage
from squish.sessions.model_status import ModelStatus

DEPLOY = Path(__file__).parents[2] / "deploy"
OPTIONS = {name for parameter in serve.params for name in parameter.opts}


class OneModel:
    def status(self) -> list[ModelStatus]:
        return [ModelStatus("m", "ready", 1, 2, os.getpid(), 3, 4, "", None)]


def samples() -> dict[str, set[str]]:
    """The names that `/metrics` has once something was answered, and the labels of each."""
    metrics = Metrics(OneModel())
    metrics.request("POST", "/v1/chat/completions", 200)
    metrics.first_token("m", 0.1)
    usage, timings = Usage(7, 2, 3), Timings(0.1, 0.1)
    metrics.finished("m", Finished(0, "stop", usage, timings), first_of_prompt=True)
    metrics.used("alice", {"requests": 1, "prompt": 7, "cached": 3, "completion": 2})
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(metrics.text().decode()):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((DEPLOY / "grafana.json").read_text())["panels"]
    return found


def test_the_dashboard_shows_metrics_that_there_are() -> None:
    known = samples()
    targets = [target for panel in panels() for target in panel["targets"]]
    assert len(targets) >= 10
    for target in targets:
        expression, legend = target["expr"], target["legendFormat"]
        names = set(re.findall(r"squish_\w+", expression))
        assert names and names <= known.keys(), expression
        labels = set.intersection(*(known[name] for name in names))
        grouped = {label for by in re.findall(r"by \(([^)]*)\)", expression) for label in by.split(", ")}
        chosen = set(re.findall(r"[{,](\w+)!?=", expression))
        assert grouped | chosen <= labels, expression
        assert set(re.findall(r"{{(\w+)}}", legend)) == grouped - {"le"}, expression
        assert ("histogram_quantile" in expression) == ("le" in grouped) == ("le" in labels), expression
        rates = set(re.findall(r"rate\((squish_\w+)", expression))
        assert rates == {name for name in names if name.endswith(("_total", "_bucket"))}, expression
    assert len({panel["id"] for panel in panels()}) == len(panels())


def test_no_token_of_a_key_is_counted_twice() -> None:
    """Those that were cached are tokens of the prompt."""
    [panel] = [each for each in panels() if each["title"] == "Tokens by key"]
    assert 'squish_key_tokens_total{kind!="cached"}' in panel["targets"][0]["expr"]


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


def composed() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    return found


def test_every_variable_that_a_file_sets_is_one_that_is_read() -> None:
    known = {key.variable for key in KEYS}
    environments = [service["environment"] for name, service in composed().items() if name.startswith("squish")]
    for pod in yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text()):
        for container in pod["spec"].get("template", {}).get("spec", {}).get("containers", []):
            environments.append({each["name"]: each for each in container["env"]})
    assert len(environments) == 3
    assert all(environment.keys() <= known for environment in environments)


def test_all_files_speak_of_the_same_servers_ports_and_paths() -> None:
    services = composed()
    servers = {f"{name}:{DEFAULT_PORT}" for name in services if name.startswith("squish")}
    assert set(re.findall(r"server (\S+) max_fails", (DEPLOY / "nginx.conf").read_text())) == servers
    assert set(re.findall(r"api_base: http://(\S+)/v1", (DEPLOY / "litellm.yaml").read_text())) == servers
    assert f"EXPOSE {DEFAULT_PORT}\n" in (DEPLOY / "Containerfile").read_text()
    for text in (services["squish-a"]["healthcheck"]["test"][-1], (DEPLOY / "kubernetes.yaml").read_text()):
        assert set(map(int, re.findall(r"(?:127\.0\.0\.1:|[pP]ort: )(\d+)", text))) == {DEFAULT_PORT}
    path = services["squish-a"]["healthcheck"]["test"][-1].partition(str(DEFAULT_PORT))[2].partition("'")[0]
    assert path in openapi.openapi()["paths"]


def test_every_file_that_is_mounted_is_there_and_read_where_it_is_mounted() -> None:
    mounted = [each for service in composed().values() for each in service["volumes"] if each.startswith("./")]
    inside = {source: target for source, target, _ in (each.split(":") for each in mounted)}
    assert len(inside) == 3 and all((DEPLOY / source).is_file() for source in inside)
    nginx = (DEPLOY / "nginx.conf").read_text()
    assert f"{re.findall(r'js_path (.*);', nginx)[0]}/affinity.js" == inside["./affinity.js"]
    assert inside["./litellm.yaml"] in composed()["litellm"]["command"]


def test_litellm_has_two_servers_for_one_name_and_a_key() -> None:
    config = yaml.safe_load((DEPLOY / "litellm.yaml").read_text())
    assert len({each["litellm_params"]["api_base"] for each in config["model_list"]}) == 2
    assert len({each["model_name"] for each in config["model_list"]}) == 1
    assert config["general_settings"]["master_key"].startswith("os.environ/")  # it does not start without
    # With one failure allowed, all tries of a request can meet the server that is gone.
    assert config["router_settings"]["allowed_fails"] == 0 < config["router_settings"]["num_retries"]
