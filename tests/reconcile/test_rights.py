"""The operator with the rights that the charts give it, and no more."""

import subprocess

import pytest

from prfaas_local import binaries
from prfaas_local.testing import control_plane

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


def install(cluster, chart, folder, *settings):
    """Apply a chart's manifests in a namespace of the chart's name."""
    rendered = subprocess.run(
        [binaries.find("helm"), "template", "prfaas", folder / chart, f"--namespace={chart}", "--kube-version=1.36",
         *(f"--set={setting}" for setting in settings)],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert rendered.returncode == 0, rendered.stderr
    cluster.kubectl("create", "namespace", chart)
    cluster.kubectl("apply", "-f", "-", stdin=rendered.stdout)


def test_the_charts_give_enough(tmp_path, another_operator, tenant, client):
    """With the ServiceAccounts of the two charts everything works: pools, routes, their deletion, and a restart's memory."""
    charts, crds = tenant.repository / "charts", tenant.repository / "crds"
    with control_plane(tmp_path / "hub", "hub") as cluster:
        cluster.kubectl("apply", "--server-side", "-f", str(crds))
        cluster.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
        cluster.kubectl("create", "namespace", "team")
        install(cluster, "prfaas", charts, "tenantNamespaces={team}")
        install(cluster, "prfaas-member", charts)
        # The operator runs as a process here, with the token of the ServiceAccount.
        cluster.kubectl("delete", "deployment", "--all", "--namespace=prfaas")
        kubeconfig = tmp_path / "operator.kubeconfig"
        kubeconfig.write_bytes(cluster.token_kubeconfig("prfaas", "prfaas-operator"))
        restricted = another_operator("operator", cluster, "--operator-namespace=prfaas", kubeconfig=kubeconfig)
        restricted.start()
        team = type(tenant)(type(client)(cluster), "team")
        for name in ("east", "west"):
            secret = {
                "apiVersion": "v1", "kind": "Secret", "metadata": {"name": f"{name}-kubeconfig"},
                "stringData": {"kubeconfig": cluster.token_kubeconfig("prfaas-member", "prfaas-operator").decode()},
            }  # fmt: skip
            team.client.apply(secret, "team")
        team.apply()
        team.set_ready("prfaas.dev/pool=east-decode", 2)
        team.set_ready("prfaas.dev/route=chat", 1)
        team.wait_reason("InferenceRoute/chat", "Ready", "RoutersPending")
        team.wait_reason("MemberCluster/west", "Ready", "Available")
        team.wait(
            "InferenceRoute/chat",
            lambda _: any(event["reason"] == "RoutersPending" for event in team.client.list("Event", "team")),
            "the event",
        )
        # Pods are marked before they go.
        team.merge("PrefillPool/east-prefill", {"spec": {"replicas": 1}})
        team.wait("Deployment/east-prefill", lambda found: found["spec"]["replicas"] == 1, "has a worker less")
        for key in team.bodies:
            team.delete(key)
        for key in team.bodies:
            team.wait_gone(key)
        assert restricted.stop() == 0
        assert "forbidden" not in restricted.log
