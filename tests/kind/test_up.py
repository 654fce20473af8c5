"""`prfaas up` on kind, from the first command to the report, and what is left of it when it does not get there."""

import base64
import io
import signal
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from prfaas_cli import local, providers, tree
from prfaas_cli.installation import Installation
from prfaas_cli.manifests import Manifests
from prfaas_cli.trace import TraceRequest
from prfaas_local.errors import LocalClusterError
from prfaas_local.kind.environment import KindEnvironment

REPOSITORY = Path(__file__).resolve().parents[2]
REQUEST = TraceRequest(arrival_s=0.0, input_tokens=3, output_tokens=1, block_ids=(1,))
STREAM = b'data: {"choices": [{"text": "a"}], "usage": {"prompt_tokens": 3}}\n\ndata: [DONE]\n\n'


class Answers(BaseHTTPRequestHandler):
    """A router and a Prometheus without samples, behind whatever is forwarded."""

    def do_GET(self) -> None:
        self._answer(b'{"data": {"result": []}}')

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self._answer(STREAM)

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class names it
        """Keep quiet."""


@pytest.fixture
def installation(environment: KindEnvironment, spawner: Any) -> Iterator[Installation]:
    manifests = Manifests.load(REPOSITORY / "e2e" / "manifests").with_plain_addresses()
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        spawner.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield Installation(environment, Path("charts"), manifests.written(environment.folder / "manifests"))
        server.shutdown()
        thread.join()


def bring_up(installation: Installation, output: io.StringIO) -> Any:
    return local.bring_up(Console(file=output, width=200), installation, (REQUEST,), 8.0)


def test_a_trace_is_served_through_a_forward_and_the_report_says_what_it_cannot_know(
    installation: Installation, environment: KindEnvironment, recorder: Any, spawner: Any
) -> None:
    output = io.StringIO()
    summary = bring_up(installation, output)
    assert (summary.requests, summary.errors) == (1, 0)
    assert "link: no numbers, because nothing measures it here" in output.getvalue()
    assert [command.split("port-forward ")[1] for command in spawner.commands] == [
        "--namespace=prfaas-demo --address=127.0.0.1 service/chat-router :8080",
        "--namespace=prometheus --address=127.0.0.1 service/prometheus :9090",
    ]
    assert all(process.poll() is not None for process in spawner.processes), "forwards end with the command"
    environment.check_running()
    assert len(recorder.clusters) == 3


def test_charts_secrets_and_manifests_are_those_of_kind(
    installation: Installation, environment: KindEnvironment, recorder: Any
) -> None:
    bring_up(installation, io.StringIO())
    charts = sorted((command.split()[4], Path(command.split()[1]).stem) for command in recorder.matching("helm "))
    assert charts == [("prfaas", "hub"), ("prfaas-member", "east"), ("prfaas-member", "west")]
    (values,) = [value for value in recorder.values if value]
    assert values["service"] == {"clusterIP": "10.150.0.200"}
    assert values["prometheus"] == {"url": "http://prometheus.prometheus.svc:9090"}
    secrets = {item["metadata"]["name"]: item for item in recorder.objects("hub", "Secret")}
    found = yaml.safe_load(base64.b64decode(secrets["west-kubeconfig"]["data"]["kubeconfig"]))
    assert found["clusters"][0]["cluster"]["server"] == "https://prfaas-west-control-plane:6443"
    assert found["users"][0]["user"] == {"token": "token of prfaas-operator in west"}
    folder = environment.folder
    kubectl = f"kubectl --kubeconfig={folder}/hub.kubeconfig"
    assert recorder.matching("apply -f /") == [f"{kubectl} apply -f {folder}/manifests"]


def test_one_kubeconfig_has_a_context_for_each_cluster(
    installation: Installation, environment: KindEnvironment
) -> None:
    bring_up(installation, io.StringIO())
    merged = yaml.safe_load((environment.folder / "kubeconfig").read_text())
    users = {context["name"]: context["context"]["user"] for context in merged["contexts"]}
    assert users == {name: f"kind-prfaas-{name}" for name in ("hub", "east", "west")}
    assert merged["current-context"] == "hub"


def test_a_second_up_installs_into_what_runs(installation: Installation, recorder: Any, spawner: Any) -> None:
    bring_up(installation, io.StringIO())
    recorder.commands.clear()
    output = io.StringIO()
    bring_up(installation, output)
    assert "the environment is running; installing into it" in output.getvalue()
    assert recorder.matching("kind create") == []
    assert len(recorder.matching("helm ")) == 3
    assert all(process.poll() is not None for process in spawner.processes)


@pytest.mark.parametrize(
    "words", ["create cluster --name prfaas-west", "docker build", "docker-image --name prfaas-west", "ip route",
              "rollout status", "helm", "create token prfaas-operator", "apply -f /"],
)  # fmt: skip
def test_a_failure_in_the_middle_leaves_nothing(
    installation: Installation, environment: KindEnvironment, recorder: Any, words: str
) -> None:
    recorder.failing[words] = "no space left"
    with pytest.raises(LocalClusterError, match="no space left"):
        bring_up(installation, io.StringIO())
    assert recorder.clusters == set()
    assert not environment.exists


@pytest.mark.parametrize("words", ["create cluster --name prfaas-east", "docker build", "rollout status", "get iroute"])
def test_an_interrupt_leaves_nothing(
    installation: Installation, environment: KindEnvironment, recorder: Any, words: str
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    recorder.raising[words] = KeyboardInterrupt()
    output = io.StringIO()
    with pytest.raises(KeyboardInterrupt):
        bring_up(installation, output)
    assert "interrupted; stopping everything" in output.getvalue()
    assert recorder.clusters == set()
    assert not environment.exists
    assert signal.getsignal(signal.SIGTERM) is before


def test_what_cannot_be_cleaned_up_is_told_beside_the_failure(installation: Installation, recorder: Any) -> None:
    recorder.failing["docker build"] = "no space left"
    recorder.failing["delete cluster --name prfaas-hub"] = "[internal] docker hangs"
    output = io.StringIO()
    with pytest.raises(LocalClusterError, match="no space left"):
        bring_up(installation, output)
    assert "not everything is stopped; try again with prfaas down: prfaas-hub is left over" in output.getvalue()
    assert "[internal] docker hangs" in output.getvalue()
    assert recorder.clusters == {"prfaas-hub"}


@pytest.mark.parametrize("program", ["docker", "kind"])
def test_without_docker_or_kind_nothing_is_begun(installation: Installation, recorder: Any, program: str) -> None:
    recorder.missing.add(program)
    with pytest.raises(LocalClusterError, match=rf"(?s)`{program}` does not run.*take the provider `processes`"):
        bring_up(installation, io.StringIO())
    assert recorder.matching("create") == []


def test_the_tree_of_an_empty_hub_names_it(installation: Installation, environment: KindEnvironment) -> None:
    bring_up(installation, io.StringIO())
    assert "https://127.0.0.1:40000" in str(tree.draw(environment).label)


def test_a_folder_says_whose_environment_it_holds(installation: Installation, environment: KindEnvironment) -> None:
    manifests = Manifests.load(REPOSITORY / "e2e" / "manifests")
    assert providers.provider_of(environment.folder) is None
    bring_up(installation, io.StringIO())
    assert providers.provider_of(environment.folder) == "kind"
    with pytest.raises(LocalClusterError, match=r"of the provider 'kind'; stop it with `prfaas down`"):
        providers.prepared("processes", environment.folder, manifests)
    found, _ = providers.prepared("kind", environment.folder, manifests)
    found.check_running()
    providers.existing(environment.folder).check_running()
