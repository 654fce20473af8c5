"""The environment on kind: what is done in which order, and that nothing stays behind."""

import base64
from pathlib import Path
from typing import Any

import pytest
import yaml

from prfaas_local.errors import LocalClusterError
from prfaas_local.kind.environment import NAMES, KindEnvironment, KindSettings


def start(environment: KindEnvironment) -> list[str]:
    lines: list[str] = []
    environment.start(lines.append)
    return lines


def test_the_steps_are_taken_in_order(environment: KindEnvironment, recorder: Any) -> None:
    lines = start(environment)
    order = ("docker info", "kind create", "docker build", "kind load", "ip route", "create token", "rollout status")
    places = [next(index for index, command in enumerate(recorder.commands) if words in command) for words in order]
    assert places == sorted(places)
    assert lines[1:] == [
        "making the clusters hub, east, west", "building and loading images", "connecting the networks",
        "starting Prometheus", "Prometheus is ready",
    ]  # fmt: skip
    environment.check_running()


def test_prometheus_reads_pods_of_every_cluster_as_an_account_that_may_do_nothing_else(
    environment: KindEnvironment, recorder: Any
) -> None:
    start(environment)
    for name in NAMES:
        (role,) = recorder.objects(name, "ClusterRole")
        assert role["rules"] == [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}]
        (binding,) = recorder.objects(name, "ClusterRoleBinding")
        assert binding["subjects"] == [{"kind": "ServiceAccount", "namespace": "prometheus", "name": "prometheus"}]
        assert binding["roleRef"]["name"] == role["metadata"]["name"]
        kinds = [item["kind"] for where, item in recorder.applied if where == name]
        assert kinds.index("Namespace") < kinds.index("ServiceAccount")
    (secret,) = recorder.objects("hub", "Secret")
    west = yaml.safe_load(secret["stringData"]["west"])
    assert west["clusters"][0]["cluster"]["server"] == "https://prfaas-west-control-plane:6443"
    assert west["users"][0]["user"] == {"token": "token of prometheus in west"}
    assert environment.prometheus_pod_url == "http://prometheus.prometheus.svc:9090"


def test_a_token_kubeconfig_works_between_containers_and_holds_no_administrators_key(
    environment: KindEnvironment,
) -> None:
    start(environment)
    found = yaml.safe_load(environment.clusters["east"].token_kubeconfig("prfaas-system", "prfaas-operator"))
    cluster = found["clusters"][0]["cluster"]
    assert cluster["server"] == "https://prfaas-east-control-plane:6443"
    assert base64.b64decode(cluster["certificate-authority-data"]) == b"CA of prfaas-east"
    assert found["users"] == [{"name": "east", "user": {"token": "token of prfaas-operator in east"}}]


def test_this_machine_reaches_the_api_server_and_services_by_ways_of_its_own(
    environment: KindEnvironment, spawner: Any
) -> None:
    start(environment)
    assert environment.hub.server == "https://127.0.0.1:40000"
    assert environment.prometheus_url == "http://127.0.0.1:41000"
    kubectl = f"kubectl --kubeconfig={environment.folder}/hub.kubeconfig"
    forward = "port-forward --namespace=prometheus --address=127.0.0.1 service/prometheus :9090"
    assert spawner.commands == [f"{kubectl} {forward}"]
    environment.close()
    assert spawner.processes[0].poll() is not None


def test_stopping_deletes_the_clusters_and_ends_forwards(
    environment: KindEnvironment, recorder: Any, spawner: Any
) -> None:
    with pytest.raises(LocalClusterError, match="is not running"):
        environment.check_running()
    start(environment)
    assert environment.prometheus_url
    assert environment.stop(0.1) == 0
    assert spawner.processes[0].poll() is not None
    assert recorder.clusters == set()
    assert not environment.exists
    with pytest.raises(LocalClusterError, match="is not running"):
        environment.check_running()


def test_what_a_killed_start_left_is_deleted_by_the_next(environment: KindEnvironment, recorder: Any) -> None:
    recorder.raising["docker build"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        start(environment)
    assert len(recorder.clusters) == 3
    with pytest.raises(LocalClusterError, match="is not running"):
        environment.check_running()
    recorder.raising.clear()
    start(environment)
    deleted = [command.split()[4] for command in recorder.matching("kind delete")]
    assert deleted == ["prfaas-east", "prfaas-hub", "prfaas-west"]
    environment.check_running()


def test_cancelling_ends_between_two_steps(environment: KindEnvironment, recorder: Any) -> None:
    with pytest.raises(LocalClusterError, match="cancelled"):
        environment.start(lambda _: None, lambda: bool(recorder.clusters))
    assert recorder.matching("docker build") == []


def test_clients_are_looked_for_before_anything_is_made(tmp_path: Path, recorder: Any) -> None:
    def find(name: str) -> Path:
        raise LocalClusterError(f"{name} cannot be had")

    environment = KindEnvironment(tmp_path, KindSettings((), {}), recorder, find=find)
    with pytest.raises(LocalClusterError, match="kubectl cannot be had"):
        start(environment)
    assert recorder.matching("create") == []
