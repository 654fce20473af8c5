"""The charts on a real cluster: accepted in every variant, idempotent, and with the rights that they say and no others."""

from __future__ import annotations

import base64
import json
import ssl
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from prfaas_local import binaries
from prfaas_local.cluster import Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

CHARTS = Path(__file__).resolve().parents[2] / "charts"
HUB = "system:serviceaccount:prfaas-system:prfaas-operator"
MEMBER = "system:serviceaccount:prfaas-member:prfaas-operator"
KINDS = ("memberclusters", "modelprofiles", "prefillpools", "decodepools", "kvlinks", "inferenceroutes", "budgets")
Helm = Callable[..., str]


class Release:
    """A release of a chart; installing it again upgrades it."""

    def __init__(self, helm: Helm, cluster: Cluster, name: str, chart: str, namespace: str) -> None:
        self._helm = helm
        self._cluster = cluster
        self._arguments = (
            name, str(CHARTS / chart), f"--namespace={namespace}", f"--kubeconfig={cluster.admin_kubeconfig}",
        )  # fmt: skip
        self.namespace = namespace

    def install(self, *values: str) -> str:
        return self._helm(
            "upgrade", "--install", "--create-namespace", *self._arguments, *(f"--set={value}" for value in values)
        )

    def uninstall(self) -> None:
        name, _, *options = self._arguments
        self._helm("uninstall", name, *options)

    def get(self, kind: str, name: str) -> dict[str, Any]:
        found = json.loads(self._cluster.kubectl("get", kind, name, f"--namespace={self.namespace}", "-o", "json"))
        assert isinstance(found, dict)
        return found


@pytest.fixture(scope="module")
def hub(helm: Helm, cluster: Cluster) -> Release:
    """The chart prfaas for the tenant team-a."""
    release = Release(helm, cluster, "prfaas", "prfaas", "prfaas-system")
    release.install("tenantNamespaces={team-a}")
    return release


@pytest.fixture(scope="module")
def member(helm: Helm, cluster: Cluster) -> Release:
    """The chart prfaas-member for all namespaces."""
    release = Release(helm, cluster, "prfaas-member", "prfaas-member", "prfaas-member")
    release.install()
    return release


def may(cluster: Cluster, who: str, verb: str, resource: str, *options: str) -> bool:
    """Return the answer of `kubectl auth can-i`, which also is its exit status."""
    done = subprocess.run(
        [str(binaries.find("kubectl")), f"--kubeconfig={cluster.admin_kubeconfig}", "auth", "can-i", verb, resource,
         f"--as={who}", *options],
        capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip
    answer = done.stdout.strip().split(" ")[0]
    assert answer in ("yes", "no"), done.stderr
    return answer == "yes"


def granted(cluster: Cluster, who: str, namespace: str) -> set[tuple[str, str]]:
    """Return every (verb, resource.group) that a ServiceAccount has in a namespace beyond those of everybody."""
    account = {"user": who, "groups": ["system:serviceaccounts", "system:authenticated"]}
    review = {
        "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview", "spec": {"namespace": namespace},
    }  # fmt: skip
    text = cluster.kubectl(
        "create", "-f", "-", "-o", "json", "--validate=false", f"--as={account['user']}", *(f"--as-group={group}" for group in account["groups"]),
        stdin=json.dumps(review),
    )  # fmt: skip
    found: set[tuple[str, str]] = set()
    for rule in json.loads(text)["status"]["resourceRules"]:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                found |= {(verb, f"{resource}.{group}".rstrip(".")) for verb in rule["verbs"]}
    return {(verb, resource) for verb, resource in found if not resource.startswith("selfsubject")}


def pairs(verbs: str, *resources: str) -> set[tuple[str, str]]:
    return {(verb, resource) for verb in verbs.split() for resource in resources}


@pytest.mark.parametrize(
    ("chart", "values"),
    [
        ("prfaas", ()),
        ("prfaas", ("service.type=LoadBalancer", "service.nodePort=30051", "advertiseAddress=hub.example.com:50051")),
        ("prfaas", ("tls.existingSecret=mine", "serviceAccount.create=false", "serviceAccount.name=default")),
        ("prfaas", ("nodeSelector.pool=system", "tolerations[0].operator=Exists", "priorityClassName=system-cluster-critical",
                    "imagePullSecrets[0].name=pull", "extraEnv[0].name=A", "extraEnv[0].value=b", "podLabels.a=b",
                    "podAnnotations.a=b", "serviceAccount.annotations.a=b", "service.annotations.a=b")),
        ("prfaas", ("externalMetrics.enabled=true", "keda.enabled=true", "keda.tls=true")),
        ("prfaas-member", ("token.create=true",)),
        ("prfaas-member", ("namespaces={team-a,team-b}", "serviceAccount.create=false")),
    ],
)  # fmt: skip
def test_the_api_server_accepts_every_variant(
    hub: Release, template: Callable[..., list[dict[str, Any]]], cluster: Cluster, chart: str, values: tuple[str, ...]
) -> None:
    """Strictly: a misspelled field is an error. The hub's release is there for its namespace alone."""
    objects = template(chart, "fullnameOverride=dry", *values) if chart == "prfaas" else template(chart, *values)
    text = yaml.safe_dump_all(objects)
    said = cluster.kubectl(
        "apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict", "-f", "-", stdin=text
    )
    assert len(said.splitlines()) == len(objects)


def test_the_crds_come_with_the_chart(hub: Release, cluster: Cluster) -> None:
    cluster.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
    found = cluster.kubectl("get", "crd", "-o", "name").split()
    assert set(found) == {f"customresourcedefinition.apiextensions.k8s.io/{kind}.prfaas.dev" for kind in KINDS}


def test_installing_again_changes_nothing(hub: Release, member: Release, cluster: Cluster) -> None:
    kinds = "serviceaccount,secret,service,deployment,role,rolebinding,clusterrole,clusterrolebinding,crd"

    def versions() -> dict[str, str]:
        found = json.loads(cluster.kubectl("get", kinds, "--all-namespaces", "-o", "json"))["items"]
        return {
            f"{item['kind']}/{item['metadata'].get('namespace')}/{item['metadata']['name']}": (
                # The controllers write the Deployment's status meanwhile.
                item["metadata"]["generation"] if item["kind"] == "Deployment" else item["metadata"]["resourceVersion"]
            )
            for item in found
            if item.get("type") != "helm.sh/release.v1"
        }

    before = versions()
    hub.install("tenantNamespaces={team-a}")
    member.install()
    assert versions() == before
    assert "Secret/prfaas-system/prfaas-operator-tls" in before


def test_the_certificate_is_kept_while_its_names_are_the_same(helm: Helm, cluster: Cluster) -> None:
    release = Release(helm, cluster, "prfaas-tls", "prfaas", "tls")
    try:
        release.install("advertiseAddress=one.example.com:443")
        first = release.get("secret", "prfaas-tls-operator-tls")["data"]
        pods = release.get("deployment", "prfaas-tls-operator")["spec"]["template"]
        release.install("advertiseAddress=one.example.com:443", "podLabels.a=b")
        assert release.get("secret", "prfaas-tls-operator-tls")["data"] == first
        release.install("advertiseAddress=two.example.com:443")
        second = release.get("secret", "prfaas-tls-operator-tls")["data"]
        assert second != first
        # Other names roll the operator, which has to read the other certificate.
        assert release.get("deployment", "prfaas-tls-operator")["spec"]["template"] != pods
        handshake(second, "two.example.com")
        with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
            handshake(second, "one.example.com")
    finally:
        release.uninstall()


def test_a_fixed_address_is_in_the_certificate(helm: Helm, cluster: Cluster) -> None:
    release = Release(helm, cluster, "prfaas-fixed", "prfaas", "fixed")
    address = f"127.{cluster.network.services}.9.9"
    try:
        release.install(f"service.clusterIP={address}")
        assert release.get("service", "prfaas-fixed-operator")["spec"]["clusterIP"] == address
        handshake(release.get("secret", "prfaas-fixed-operator-tls")["data"], address)
    finally:
        release.uninstall()


def handshake(secret: dict[str, str], host: str) -> None:
    """Do a TLS handshake in memory: a server with tls.crt and tls.key, a client that trusts ca.crt and wants `host`."""
    files = {name: base64.b64decode(content) for name, content in secret.items()}
    client_context = ssl.create_default_context(cadata=files["ca.crt"].decode())
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.NamedTemporaryFile() as pair:
        pair.write(files["tls.crt"] + files["tls.key"])
        pair.flush()
        server_context.load_cert_chain(pair.name)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(to_client, to_server, server_hostname=host)
    server = server_context.wrap_bio(to_server, to_client, server_side=True)
    finished: set[str] = set()
    while len(finished) < 2:
        for name, side in (("client", client), ("server", server)):
            try:
                side.do_handshake()
                finished.add(name)
            except ssl.SSLWantReadError:
                continue


def test_the_operator_has_the_rights_of_the_readme_on_the_hub_and_no_others(hub: Release, cluster: Cluster) -> None:
    everywhere = (
        pairs("get list watch patch", *(f"{kind}.prfaas.dev" for kind in KINDS))
        | pairs("patch", *(f"{kind}/status.prfaas.dev" for kind in KINDS))
        | pairs("update", *(f"{kind}/finalizers.prfaas.dev" for kind in KINDS))
        | pairs("create", "events")
        | pairs("get list watch", "horizontalpodautoscalers.autoscaling")
    )
    assert granted(cluster, HUB, "team-b") == everywhere
    assert granted(cluster, HUB, "team-a") == everywhere | pairs("get", "secrets")
    own = pairs("get create update", "leases.coordination.k8s.io") | pairs("get create patch delete", "configmaps")
    assert granted(cluster, HUB, "prfaas-system") == everywhere | own


def test_the_operator_has_the_rights_of_the_readme_in_a_member_and_no_others(member: Release, cluster: Cluster) -> None:
    children = ("deployments.apps", "services", "configmaps", "serviceaccounts", "poddisruptionbudgets.policy")
    wanted = (
        pairs("get list watch create patch delete", *children)
        | pairs("get list watch patch", "pods")
        | pairs("get create", "namespaces")
        | pairs("create", "tokenreviews.authentication.k8s.io")
    )
    for namespace in ("team-a", "team-b", "kube-system"):
        assert granted(cluster, MEMBER, namespace) == wanted


@pytest.mark.parametrize(
    ("who", "verb", "resource", "options", "allowed"),
    [
        (HUB, "watch", "prefillpools.prfaas.dev", ("--all-namespaces",), True),
        (HUB, "patch", "inferenceroutes.prfaas.dev", ("--subresource=status", "-n", "team-b"), True),
        (HUB, "get", "secrets/east-kubeconfig", ("-n", "team-a"), True),
        (HUB, "get", "secrets/east-kubeconfig", ("-n", "team-b"), False),
        (HUB, "get", "secrets/prfaas-operator-tls", ("-n", "prfaas-system"), False),
        (HUB, "list", "secrets", ("-n", "team-a"), False),
        (HUB, "create", "decodepools.prfaas.dev", ("-n", "team-a"), False),
        (HUB, "delete", "decodepools.prfaas.dev", ("-n", "team-a"), False),
        (HUB, "create", "deployments.apps", ("-n", "team-a"), False),
        (HUB, "get", "leases.coordination.k8s.io", ("-n", "kube-system"), False),
        (HUB, "create", "clusterrolebindings.rbac.authorization.k8s.io", (), False),
        (HUB, "get", "customresourcedefinitions.apiextensions.k8s.io", (), False),
        (MEMBER, "create", "deployments.apps", ("-n", "team-a"), True),
        (MEMBER, "create", "tokenreviews.authentication.k8s.io", (), True),
        (MEMBER, "get", "secrets", ("-n", "team-a"), False),
        (MEMBER, "create", "pods", ("-n", "team-a"), False),
        (MEMBER, "create", "pods", ("--subresource=exec", "-n", "team-a"), False),
        (MEMBER, "get", "pods", ("--subresource=log", "-n", "team-a"), False),
        (MEMBER, "create", "serviceaccounts", ("--subresource=token", "-n", "team-a"), False),
        (MEMBER, "delete", "namespaces", (), False),
        (MEMBER, "get", "nodes", (), False),
        (MEMBER, "create", "rolebindings.rbac.authorization.k8s.io", ("-n", "team-a"), False),
        (MEMBER, "impersonate", "users", (), False),
    ],
)
def test_can_i(
    hub: Release, member: Release, cluster: Cluster, who: str, verb: str, resource: str, options: tuple[str, ...], allowed: bool
) -> None:  # fmt: skip
    assert may(cluster, who, verb, resource, *options) is allowed


def test_a_member_can_be_kept_to_namespaces(helm: Helm, cluster: Cluster) -> None:
    release = Release(helm, cluster, "narrow", "prfaas-member", "narrow")
    release.install("namespaces={team-a}")
    who = "system:serviceaccount:narrow:prfaas-operator"
    reviews = pairs("create", "tokenreviews.authentication.k8s.io")
    assert ("create", "deployments.apps") in granted(cluster, who, "team-a")
    assert granted(cluster, who, "team-b") == reviews
    release.uninstall()


def test_the_hub_can_be_a_member(hub: Release, helm: Helm, cluster: Cluster) -> None:
    release = Release(helm, cluster, "hub-member", "prfaas-member", "prfaas-system")
    try:
        release.install("serviceAccount.create=false", "serviceAccount.name=prfaas-operator")
        assert may(cluster, HUB, "create", "deployments.apps", "-n", "team-b")
    finally:
        release.uninstall()
    assert not may(cluster, HUB, "create", "deployments.apps", "-n", "team-b")


def test_a_lasting_token_is_there_when_asked_for(helm: Helm, cluster: Cluster) -> None:
    release = Release(helm, cluster, "lasting", "prfaas-member", "lasting")
    release.install("token.create=true")
    # The token controller fills it in.
    cluster.kubectl(
        "wait", "--for=jsonpath={.data.token}", "secret/prfaas-operator-token", "--namespace=lasting", "--timeout=30s"
    )
    release.uninstall()


def test_uninstalling_keeps_the_crds_and_removes_the_rest(helm: Helm, cluster: Cluster) -> None:
    release = Release(helm, cluster, "prfaas-brief", "prfaas", "brief")
    release.install()
    release.uninstall()
    left = json.loads(
        cluster.kubectl("get", "deployment,service,secret,role,rolebinding", "--namespace=brief", "-o", "json")
    )
    assert left["items"] == []
    assert "brief-prfaas" not in cluster.kubectl("get", "clusterrole,clusterrolebinding", "-o", "name")
    assert "prefillpools.prfaas.dev" in cluster.kubectl("get", "crd", "-o", "name")
