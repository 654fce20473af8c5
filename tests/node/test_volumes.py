"""Environment, volumes and tokens are what the pod's spec says, and follow their sources."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.cluster]

Json = dict[str, Any]


def config_map(name: str, data: dict[str, str]) -> Json:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"}, "data": data}


def test_environment_comes_from_everywhere(node: Any, make_pod: Callable[..., Json]) -> None:
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "env", "namespace": "default"},
        "stringData": {"key": "s3"},
    }
    node.apply(config_map("env", {"A": "1", "B": "2"}), secret)
    env = [
        {"name": "B", "value": "own"},
        {"name": "BOTH", "value": "$(A) $(B) $(UNKNOWN) $$(A)"},
        {"name": "SECRET", "valueFrom": {"secretKeyRef": {"name": "env", "key": "key"}}},
        {"name": "ABSENT", "valueFrom": {"configMapKeyRef": {"name": "none", "key": "x", "optional": True}}},
        {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        {"name": "LABEL", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
        {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1m"}}},
    ]
    container = {"env": env, "envFrom": [{"configMapRef": {"name": "env"}}], "resources": {"limits": {"cpu": "250m"}}}
    node.apply(
        make_pod(
            "env",
            "import json, os; print(json.dumps(dict(os.environ)))",
            labels={"app": "x"},
            container=container,
            restartPolicy="Never",
        )
    )
    node.wait(lambda: node.get("pod", "env")["status"].get("phase") == "Succeeded", "its end")
    found = json.loads(node.log("env"))
    wanted = {
        "A": "1",
        "B": "own",
        "BOTH": "1 own $(UNKNOWN) $(A)",
        "SECRET": "s3",
        "NODE": "one",
        "LABEL": "x",
        "CPU": "250",
        "HOSTNAME": "env",
    }
    assert {key: found.get(key) for key in wanted} == wanted
    assert "ABSENT" not in found
    assert found["KUBERNETES_SERVICE_HOST"].startswith("127.")
    node.delete("pod", "env")


def test_a_token_lets_the_pod_ask_the_api_server_as_itself(node: Any, make_pod: Callable[..., Json]) -> None:
    script = """
import json, os, ssl, urllib.request
folder = "/var/run/secrets/kubernetes.io/serviceaccount"
context = ssl.create_default_context(cafile=folder + "/ca.crt")
url = f"https://{os.environ['KUBERNETES_SERVICE_HOST']}:{os.environ['KUBERNETES_SERVICE_PORT']}/apis/authentication.k8s.io/v1/selfsubjectreviews"
body = json.dumps({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}).encode()
headers = {"Authorization": "Bearer " + open(folder + "/token").read(), "Content-Type": "application/json"}
answer = urllib.request.urlopen(urllib.request.Request(url, body, headers), context=context)
print(json.load(answer)["status"]["userInfo"]["username"], open(folder + "/namespace").read())
try:
    open(folder + "/token", "w")
except OSError as error:
    print(error.strerror)
"""
    node.apply(make_pod("token", script, restartPolicy="Never"))
    node.wait(lambda: node.get("pod", "token")["status"].get("phase") in ("Succeeded", "Failed"), "its end")
    assert node.log("token") == "system:serviceaccount:default:default default\nRead-only file system\n"
    node.delete("pod", "token")


def test_a_mounted_config_map_is_replaced_as_a_whole(node: Any, make_pod: Callable[..., Json]) -> None:
    node.apply(config_map("live", {"one": "a", "two": "a"}))
    script = """
import pathlib, time
folder, last = pathlib.Path("/etc/live"), None
while True:
    data = (folder / "..data").resolve()
    try:
        now = (data / "one").read_text() + (data / "two").read_text()
    except FileNotFoundError:
        continue
    if now != last:
        print(now, flush=True)
        last = now
    time.sleep(0.002)
"""
    container = {"volumeMounts": [{"name": "live", "mountPath": "/etc/live"}]}
    node.apply(make_pod("live", script, container=container, volumes=[{"name": "live", "configMap": {"name": "live"}}]))
    node.wait(lambda: node.log("live") == "aa\n", "the first content")
    node.apply(config_map("live", {"one": "b", "two": "b"}))
    node.wait(lambda: node.log("live").endswith("bb\n"), "the second content")
    assert node.log("live") == "aa\nbb\n"
    node.delete("pod", "live", "--force", "--grace-period=0")


def test_a_pod_waits_for_a_config_map_that_is_missing(node: Any, make_pod: Callable[..., Json]) -> None:
    container = {"volumeMounts": [{"name": "late", "mountPath": "/etc/late"}]}
    node.apply(
        make_pod("late", "print(open('/etc/late/x').read())", container=container, restartPolicy="Never",
                 volumes=[{"name": "late", "configMap": {"name": "late"}}])
    )  # fmt: skip
    node.wait(
        lambda: "FailedMount" in node.cluster.kubectl("get", "events", "--field-selector=involvedObject.name=late"),
        "the event",
    )
    node.apply(config_map("late", {"x": "there"}))
    node.wait(lambda: node.log("late") == "there\n", "the pod to go on")
    node.delete("pod", "late")


def test_an_empty_dir_outlives_the_container_and_not_the_pod(node: Any, make_pod: Callable[..., Json]) -> None:
    script = "import pathlib, sys; p = pathlib.Path('/data/runs'); n = len(p.read_text()) if p.exists() else 0; p.open('a').write('x'); print(n, flush=True); sys.exit(n < 1) if n < 1 else __import__('time').sleep(600)"
    container = {"volumeMounts": [{"name": "data", "mountPath": "/data"}]}
    for _ in range(2):
        node.apply(make_pod("empty", script, container=container, volumes=[{"name": "data", "emptyDir": {}}]))
        node.wait(lambda: node.log("empty", attempt=1) == "1\n", "the second run to see the first")
        assert node.log("empty") == "0\n"
        node.delete("pod", "empty")
        node.wait(lambda: node.gone("pod", "empty"), "its end")
