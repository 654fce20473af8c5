"""The control plane is a real one: TLS, RBAC, controllers and scheduler, and it survives kill -9."""

import json
import time
from collections.abc import Callable, Iterator

import pytest

from prfaas_local import processes
from prfaas_local.cluster import Cluster
from prfaas_local.errors import LocalClusterError
from prfaas_local.testing import control_plane

pytestmark = [pytest.mark.slow, pytest.mark.cluster]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with control_plane(tmp_path_factory.mktemp("cluster")) as running:
        yield running


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            if condition():
                return
        except LocalClusterError:
            pass
        assert time.monotonic() < deadline, what


def test_a_deployment_gets_pods(cluster: Cluster) -> None:
    cluster.kubectl("create", "deployment", "web", "--image=none", "--replicas=2")

    def pods() -> bool:
        return len(json.loads(cluster.kubectl("get", "pods", "-l", "app=web", "-o", "json"))["items"]) == 2

    wait_for(pods, "two pods")
    cluster.kubectl("delete", "deployment", "web")


def test_services_get_loopback_addresses(cluster: Cluster) -> None:
    cluster.kubectl("create", "service", "clusterip", "loopback", "--tcp=80:80")
    address = cluster.kubectl("get", "service", "loopback", "-o", "jsonpath={.spec.clusterIP}")
    assert address.startswith("127.")
    cluster.kubectl("delete", "service", "loopback")


def test_a_service_account_has_only_its_own_rights(cluster: Cluster) -> None:
    cluster.kubectl("create", "serviceaccount", "weak")
    path = cluster.folder / "weak.kubeconfig"
    path.write_bytes(cluster.token_kubeconfig("default", "weak", "10m"))
    whoami = cluster.kubectl("auth", "whoami", f"--kubeconfig={path}", "-o", "jsonpath={.status.userInfo.username}")
    assert whoami == "system:serviceaccount:default:weak"
    with pytest.raises(LocalClusterError, match="forbidden"):
        cluster.kubectl("get", "secrets", f"--kubeconfig={path}")


def test_a_killed_api_server_comes_back_with_its_objects(cluster: Cluster) -> None:
    cluster.kubectl("create", "configmap", "kept", "--from-literal=a=b")
    server = cluster.children["kube-apiserver"]
    server.kill()
    with pytest.raises(LocalClusterError):
        cluster.kubectl("get", "configmap", "kept", "--request-timeout=2s")
    server.start()
    cluster.wait_ready()
    assert cluster.kubectl("get", "configmap", "kept", "-o", "jsonpath={.data.a}") == "b"


def test_nothing_is_left(tmp_path_factory: pytest.TempPathFactory) -> None:
    with control_plane(tmp_path_factory.mktemp("leftovers")) as running:
        pids = {child.pid for child in running.children.values()}
        mark = processes.mark_of(running.folder)
        assert pids <= set(processes.marked(mark))
    assert processes.marked(mark) == []
