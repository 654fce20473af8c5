"""What the charts render, by the real helm; no cluster is needed."""

from __future__ import annotations

import base64
import json
import re
import tomllib
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509

from prfaas_operator import main
from prfaas_operator.scaling.prometheus.access import PrometheusFiles

REPOSITORY = Path(__file__).resolve().parents[2]
CHARTS = REPOSITORY / "charts"
BOTH = pytest.mark.parametrize("chart", ["prfaas", "prfaas-member"])
Template = Callable[..., list[dict[str, Any]]]


def only(objects: list[dict[str, Any]], kind: str, name: str | None = None) -> dict[str, Any]:
    (found,) = (
        found for found in objects if found["kind"] == kind and (name is None or found["metadata"]["name"] == name)
    )
    return found


def container(objects: list[dict[str, Any]]) -> dict[str, Any]:
    (found,) = only(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    assert isinstance(found, dict)
    return found


def leaves(values: dict[str, Any], path: str = "") -> Iterator[str]:
    for name, value in values.items():
        if isinstance(value, dict) and value and name != "resources":
            yield from leaves(value, f"{path}{name}.")
        else:
            yield f"{path}{name}"


@BOTH
def test_lint_is_strict_and_clean(helm: Callable[..., str], chart: str) -> None:
    assert "0 chart(s) failed" in helm("lint", "--strict", str(CHARTS / chart))


@BOTH
def test_versions_are_those_of_the_distribution(chart: str) -> None:
    found = yaml.safe_load((CHARTS / chart / "Chart.yaml").read_text())
    version = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"]
    assert found["version"] == found["appVersion"] == version


@BOTH
def test_every_value_is_commented_in_the_schema_and_in_the_readme(chart: str) -> None:
    text = (CHARTS / chart / "values.yaml").read_text()
    schema = json.loads((CHARTS / chart / "values.schema.json").read_text())
    readme = (CHARTS / chart / "README.md").read_text()
    for path in leaves(yaml.safe_load(text)):
        node = schema
        for name in path.split("."):
            node = node["properties"][name]
        assert f"`{path}`" in readme, path
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if re.match(r"( {2})?\w+: \S", line):
            assert commented(lines[:number]), line


def commented(above: list[str]) -> bool:
    """Return whether a comment is above a value, or above the values right before it, which share it."""
    for line in reversed(above):
        if line.lstrip().startswith("#"):
            return True
        if not line or line.endswith(":"):
            return False
    return False


@BOTH
def test_values_of_the_readme_exist(chart: str) -> None:
    values = set(leaves(yaml.safe_load((CHARTS / chart / "values.yaml").read_text())))
    table = (CHARTS / chart / "README.md").read_text().split("## Values")[1]
    first_cells = re.findall(r"^\| (`[^|]+) \|", table, re.MULTILINE)
    assert {name for cell in first_cells for name in re.findall(r"`([\w.]+)`", cell)} == values


@pytest.mark.parametrize(
    ("chart", "value", "message"),
    [
        ("prfaas", "advertiseAddress=example.com", "/advertiseAddress"),
        ("prfaas", "service.port=70000", "/service/port"),
        ("prfaas", "service.type=ExternalName", "/service/type"),
        ("prfaas", "service.clusterIP=example.com", "/service/clusterIP"),
        ("prfaas", "prometheus.url=prometheus:9090", "/prometheus/url"),
        ("prfaas", "prometheus.url=https://me:secret@prometheus", "/prometheus/url"),
        ("prfaas", "prometheus.timeoutSeconds=600", "/prometheus/timeoutSeconds"),
        ("prfaas", "prometheus.bearerTokenSecret.name=-", "/prometheus/bearerTokenSecret/name"),
        ("prfaas", "tenantNamespaces={Team}", "/tenantNamespaces/0"),
        ("prfaas", "image.pullPolicy=Sometimes", "/image/pullPolicy"),
        ("prfaas", "tls.validityDays=0", "/tls/validityDays"),
        ("prfaas", "replicas=2", "additional properties 'replicas' not allowed"),
        ("prfaas", "serviceAccount.create=false", "serviceAccount.name: is empty while serviceAccount.create is false"),
        ("prfaas-member", "serviceAccount.name=", "/serviceAccount/name"),
        ("prfaas-member", "namespaces={team-}", "/namespaces/0"),
        ("prfaas-member", "tokens.create=true", "additional properties 'tokens' not allowed"),
    ],
)
def test_bad_values_are_refused(
    template: Template, helm_error: type[Exception], chart: str, value: str, message: str
) -> None:
    with pytest.raises(helm_error) as caught:
        template(chart, value)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("values", "address"),
    [
        ((), "prfaas-operator.prfaas-system.svc:50051"),
        (("service.port=443",), "prfaas-operator.prfaas-system.svc:443"),
        (("service.clusterIP=10.96.0.10",), "10.96.0.10:50051"),
        (("service.clusterIP=fd00::10",), "[fd00::10]:50051"),
        (("service.clusterIP=10.96.0.10", "advertiseAddress=hub.example.com:443"), "hub.example.com:443"),
        (("advertiseAddress=[fd00::20]:443",), "[fd00::20]:443"),
    ],
)
def test_routers_are_told_an_address_that_the_certificate_is_for(
    template: Template, values: tuple[str, ...], address: str
) -> None:
    objects = template("prfaas", *values)
    options, _ = main.parse(container(objects)["args"])
    assert options.advertise_address == address
    secret = only(objects, "Secret")
    assert secret["type"] == "kubernetes.io/tls"
    certificate = x509.load_pem_x509_certificate(base64.b64decode(secret["data"]["tls.crt"]))
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    host = address.rpartition(":")[0].strip("[]")
    try:
        assert ip_address(host) in names.get_values_for_type(x509.IPAddress)
    except ValueError:
        assert host in names.get_values_for_type(x509.DNSName)
    assert "prfaas-operator.prfaas-system.svc.cluster.local" in names.get_values_for_type(x509.DNSName)


def test_the_operator_understands_its_arguments(template: Template) -> None:
    objects = template("prfaas", "prometheus.url=http://prometheus:9090", "extraArgs={--log-level=debug}")
    found = container(objects)
    options, level = main.parse(found["args"])
    assert (options.host, options.grpc_port, options.http_port) == ("$(POD_IP)", 50051, 8080)
    assert (options.prometheus, level) == (PrometheusFiles(url="http://prometheus:9090"), "debug")
    ports = {port["name"]: port["containerPort"] for port in found["ports"]}
    assert ports == {"grpc": options.grpc_port, "http": options.http_port}
    environment = {variable["name"]: variable.get("value") for variable in found["env"]}
    assert environment.keys() == {"POD_IP", "POD_NAME", "POD_NAMESPACE", "TMPDIR"}
    # The root is read-only; what has to be a file for a moment has a place in memory.
    mounts = {mount["mountPath"]: mount["name"] for mount in found["volumeMounts"]}
    assert mounts == {str(options.tls_dir): "tls", environment["TMPDIR"]: "scratch"}


def test_the_operator_finds_what_prometheus_asks_for_in_mounted_secrets(template: Template) -> None:
    objects = template(
        "prfaas", "prometheus.url=https://prometheus", "prometheus.headers.X-Scope-OrgID=team=a", "prometheus.timeoutSeconds=2",
        "prometheus.caSecret.name=authority", "prometheus.basicAuthSecret=user", "prometheus.clientCertificateSecret=own",
        "prometheus.headersSecret=more",
    )  # fmt: skip
    files = main.parse(container(objects)["args"])[0].prometheus
    assert (files.url, files.timeout_s, files.headers) == ("https://prometheus", 2.0, (("X-Scope-OrgID", "team=a"),))
    assert files.bearer_token_file is None
    volumes = {
        volume["name"]: volume["secret"]["secretName"]
        for volume in only(objects, "Deployment")["spec"]["template"]["spec"]["volumes"]
        if "secret" in volume
    }
    secrets = {
        mount["mountPath"]: volumes[mount["name"]]
        for mount in container(objects)["volumeMounts"]
        if mount["name"] in volumes
    }
    assert {
        secrets[str(path.parent)]: path.name
        for path in (files.ca_file, files.username_file, files.client_certificate_file) if path is not None
    } == {"authority": "ca.crt", "user": "username", "own": "tls.crt"}  # fmt: skip
    assert secrets[str(files.header_dir)] == "more"
    token = template("prfaas", "prometheus.bearerTokenSecret.name=t", "prometheus.bearerTokenSecret.key=k")
    found = main.parse(container(token)["args"])[0].prometheus
    assert found.bearer_token_file is not None
    assert found.bearer_token_file.name == "k"


def test_only_one_way_to_log_in_at_prometheus(template: Template, helm_error: type[Exception]) -> None:
    with pytest.raises(helm_error, match="leave one of them empty"):
        template("prfaas", "prometheus.bearerTokenSecret.name=a", "prometheus.basicAuthSecret=b")


def test_actuators_are_served_when_asked_for(template: Template) -> None:
    """The API server and KEDA reach the operator by a Service of their own, whose name the certificate is for."""
    assert not [found for found in template("prfaas") if found["kind"] == "APIService"]
    objects = template("prfaas", "externalMetrics.enabled=true", "keda.enabled=true", "keda.tls=true")
    found = container(objects)
    options, _ = main.parse(found["args"])
    assert (options.external_metrics_port, options.external_scaler_port, options.external_scaler_tls) == (
        6443, 50052, True,
    )  # fmt: skip
    service = only(objects, "Service", "prfaas-operator-actuators")["spec"]
    containers = {port["name"]: port["containerPort"] for port in found["ports"]}
    assert {containers[port["targetPort"]] for port in service["ports"]} == {6443, 50052}
    registered = only(objects, "APIService")["spec"]
    assert registered["service"] == {"name": "prfaas-operator-actuators", "namespace": "prfaas-system", "port": 6443}
    secret = only(objects, "Secret")
    assert registered["caBundle"] == secret["data"]["ca.crt"]
    certificate = x509.load_pem_x509_certificate(base64.b64decode(secret["data"]["tls.crt"]))
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    # The API server checks for this name, KEDA for that of the address that it is given.
    assert {"prfaas-operator-actuators.prfaas-system.svc", "prfaas-operator-actuators.prfaas-system"} <= set(
        names.get_values_for_type(x509.DNSName)
    )
    (reader,) = (
        item for item in objects if item["kind"] == "RoleBinding" and item["metadata"]["namespace"] == "kube-system"
    )
    assert reader["roleRef"]["name"] == "extension-apiserver-authentication-reader"


def test_actuators_change_no_certificate(template: Template) -> None:
    """Routers know the operator by it, so that asking for actuators later must not make another."""
    plain, full = (
        only(template("prfaas", *values), "Secret")["metadata"]["annotations"]
        for values in ((), ("externalMetrics.enabled=true", "keda.enabled=true"))
    )
    assert plain == full


def test_a_certificate_of_ones_own_comes_with_its_authority(template: Template, helm_error: type[Exception]) -> None:
    mine = ("tls.existingSecret=mine", "externalMetrics.enabled=true")
    with pytest.raises(helm_error, match=r"externalMetrics\.caBundle: is empty"):
        template("prfaas", *mine)
    objects = template("prfaas", *mine, "externalMetrics.caBundle=TUlORQ==")
    assert only(objects, "APIService")["spec"]["caBundle"] == "TUlORQ=="


def test_one_operator_runs_and_may_do_nothing_on_its_node(template: Template) -> None:
    objects = template("prfaas")
    deployment = only(objects, "Deployment")["spec"]
    assert (deployment["replicas"], deployment["strategy"]["type"]) == (1, "Recreate")
    pod, found = deployment["template"]["spec"], container(objects)
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert found["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
    }  # fmt: skip
    assert deployment["template"]["metadata"]["annotations"]["prometheus.io/port"] == "8080"


def test_a_secret_of_ones_own_is_used_as_it_is(template: Template) -> None:
    objects = template("prfaas", "tls.existingSecret=mine")
    assert not [found for found in objects if found["kind"] == "Secret"]
    volumes = {volume["name"]: volume for volume in only(objects, "Deployment")["spec"]["template"]["spec"]["volumes"]}
    assert volumes["tls"]["secret"]["secretName"] == "mine"


def test_a_service_monitor_is_there_when_asked_for(template: Template) -> None:
    assert not [found for found in template("prfaas") if found["kind"] == "ServiceMonitor"]
    objects = template("prfaas", "serviceMonitor.enabled=true", "serviceMonitor.labels.release=mine")
    monitor = only(objects, "ServiceMonitor")
    assert monitor["metadata"]["labels"]["release"] == "mine"
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    # It selects the metrics' Service and not the one that routers use.
    services = [found for found in objects if found["kind"] == "Service"]
    assert [found["metadata"]["name"] for found in services if wanted <= found["metadata"]["labels"].items()] == [
        "prfaas-operator-metrics"
    ]


def test_releases_do_not_meet(helm: Callable[..., str], template: Template) -> None:
    """Two releases in two namespaces share no object of the cluster."""
    ours = {found["metadata"]["name"] for found in template("prfaas") if found["kind"].startswith("Cluster")}
    text = helm("template", "other", str(CHARTS / "prfaas"), "--namespace=elsewhere", "--kube-version=1.36.3")
    theirs = {found["metadata"]["name"] for found in yaml.safe_load_all(text) if found["kind"].startswith("Cluster")}
    assert ours
    assert not ours & theirs


@pytest.mark.parametrize("part", ["operator", "router"])
def test_images_are_built_from_what_is_there(part: str) -> None:
    text = (REPOSITORY / part / "Dockerfile").read_text()
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    for sources in re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE):
        for source in sources.split():
            assert (REPOSITORY / source).exists(), source
    # Everything that the wheel is made of is copied.
    for package in project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]:
        assert re.search(rf"^COPY {package.split('/')[0]} ", text, re.MULTILINE), package
    (command,) = re.findall(r'^ENTRYPOINT \["(.+)"\]$', text, re.MULTILINE)
    assert command in project["project"]["scripts"]
    (extras,) = re.findall(r"'\.\[([\w,]+)\]'", text)
    assert set(extras.split(",")) <= project["project"]["optional-dependencies"].keys()
    assert re.search(r"^USER 65532:65532$", text, re.MULTILINE)
