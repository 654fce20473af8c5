"""What the operator puts into member clusters, as a function of the objects."""

from dataclasses import replace

import pytest

from prfaas_operator.children.config_map import build_profile
from prfaas_operator.children.deployment import PoolWorkload, build_pool_deployment, build_router_deployment, revision
from prfaas_operator.children.disruption_budget import build_disruption_budget
from prfaas_operator.children.merging import TemplateError
from prfaas_operator.children.metadata import Owner, owner_uid
from prfaas_operator.children.router import RouterWorkload
from prfaas_operator.children.service import build_headless_service, build_router_service
from prfaas_operator.children.service_account import build_service_account

POOL = PoolWorkload(
    owner=Owner("PrefillPool", "team", "long", "uid-1"),
    role="prefill",
    replicas=2,
    template={"spec": {"containers": [{"name": "worker", "image": "vllm:1"}]}},
    profile_spec={"model": {"name": "m"}},
    kv_fingerprint="f" * 64,
    http_port=8000,
    kv_port=5600,
    drain_s=300,
)
ROUTER = RouterWorkload(
    owner=Owner("InferenceRoute", "team", "chat", "uid-2"),
    cluster="east",
    operator_address="prfaas.example:50051",
    container={"image": "router:1", "command": ["prfaas-router"], "args": ["--log-level=debug"]},
    replicas=3,
    sidecar_of=None,
)


def worker(deployment):
    return deployment["spec"]["template"]["spec"]["containers"][0]


def env(container):
    return {item["name"]: item.get("value", item.get("valueFrom")) for item in container["env"]}


def with_worker(**fields):
    container = {"name": "worker", "image": "vllm:1", **fields}
    return replace(POOL, template={"spec": {"containers": [container]}})


def test_a_worker_gets_what_it_needs():
    """Ports, probes, the profile and the environment of docs/architecture.md, where the template says nothing."""
    found = worker(build_pool_deployment(POOL))
    assert [(port["name"], port["containerPort"]) for port in found["ports"]] == [("http", 8000), ("kv", 5600)]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert found[probe]["httpGet"] == {"path": "/health", "port": 8000}
    assert env(found) == {
        "POD_NAME": {"fieldRef": {"fieldPath": "metadata.name"}},
        "POD_NAMESPACE": {"fieldRef": {"fieldPath": "metadata.namespace"}},
        "POD_IP": {"fieldRef": {"fieldPath": "status.podIP"}},
        "PRFAAS_PROFILE_PATH": "/etc/prfaas/profile/profile.json",
        "PRFAAS_KV_FINGERPRINT": "f" * 64,
        "PRFAAS_DRAIN_SECONDS": "300",
        "VLLM_NIXL_SIDE_CHANNEL_HOST": {"fieldRef": {"fieldPath": "status.podIP"}},
        "VLLM_NIXL_SIDE_CHANNEL_PORT": "5600",
        "PYTHONHASHSEED": "0",
    }
    assert found["volumeMounts"] == [{"name": "prfaas-profile", "mountPath": "/etc/prfaas/profile", "readOnly": True}]


@pytest.mark.parametrize(
    ("template_s", "drain_s", "grace_s", "told_s"),
    [(None, 300, 315, 300), (None, 0, 30, 20), (600, 300, 600, 585), (30, 300, 30, 20), (0, 300, 0, 1)],
)
def test_a_pod_has_the_time_that_a_drain_may_take(template_s, drain_s, grace_s, told_s):
    """The template's grace period counts; the worker, and a router beside it, are told of the time that they have in it."""
    spec = POOL.template["spec"] | ({} if template_s is None else {"terminationGracePeriodSeconds": template_s})
    pool = replace(POOL, drain_s=drain_s, template={"spec": spec}, sidecar=replace(ROUTER, sidecar_of="long"))
    deployment = build_pool_deployment(pool)
    pod = deployment["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] == grace_s
    assert env(worker(deployment))["PRFAAS_DRAIN_SECONDS"] == str(told_s)
    assert f"--drain-s={told_s}" in pod["containers"][1]["args"]


def test_a_grace_period_that_is_no_number_is_named():
    pool = replace(POOL, template={"spec": POOL.template["spec"] | {"terminationGracePeriodSeconds": "soon"}})
    with pytest.raises(TemplateError, match=r"template.spec.terminationGracePeriodSeconds: 'soon' is not"):
        build_pool_deployment(pool)


@pytest.mark.parametrize(
    ("given", "check"),
    [
        ({"env": [{"name": "PYTHONHASHSEED", "value": "7"}]}, lambda found: env(found)["PYTHONHASHSEED"] == "7"),
        ({"livenessProbe": {"exec": {}}}, lambda found: found["livenessProbe"] == {"exec": {}}),
        (
            {"ports": [{"name": "http", "containerPort": 9000}]},
            lambda found: [port["containerPort"] for port in found["ports"]] == [9000, 5600],
        ),
        ({"resources": {"limits": {"nvidia.com/gpu": 8}}}, lambda found: found["resources"]["limits"]),
    ],
    ids=["environment", "probe", "port", "resources"],
)
def test_the_template_wins(given, check):
    """What the user wrote stays as it is."""
    assert check(worker(build_pool_deployment(with_worker(**given))))


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ({"volumes": [{"name": "prfaas-profile", "emptyDir": {}}]}, "'prfaas-profile' is reserved"),
        ({"containers": [{"name": "a"}, {"name": "router"}]}, "'router' is reserved"),
        (
            {"containers": [{"name": "a", "volumeMounts": [{"name": "x", "mountPath": "/etc/prfaas/profile"}]}]},
            "mount yours elsewhere",
        ),
    ],
    ids=["volume", "container", "mount"],
)
def test_a_template_without_room_is_refused(spec, text):
    """Names that the operator needs are refused with the field and the way out."""
    template = {"spec": {"containers": [{"name": "worker"}], **spec}}
    with pytest.raises(TemplateError, match=text):
        build_pool_deployment(replace(POOL, template=template, sidecar=replace(ROUTER, sidecar_of="long")))


def test_labels_and_ownership():
    """Pods are selected by pool and role, scraped by annotation, and carry the uid of their owner."""
    deployment = build_pool_deployment(
        replace(POOL, template={**POOL.template, "metadata": {"labels": {"team": "a", "prfaas.dev/pool": "other"}}})
    )
    metadata = deployment["spec"]["template"]["metadata"]
    assert deployment["spec"]["selector"]["matchLabels"] == {"prfaas.dev/pool": "long", "prfaas.dev/role": "prefill"}
    assert metadata["labels"]["team"] == "a"
    assert metadata["labels"]["prfaas.dev/pool"] == "long"
    assert metadata["annotations"]["prometheus.io/scrape"] == "true"
    assert metadata["annotations"]["prometheus.io/port"] == "8000"
    assert owner_uid(deployment) == "uid-1"
    assert deployment["metadata"]["annotations"]["prfaas.dev/owner"] == "PrefillPool/team/long"
    assert deployment["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "prfaas"


@pytest.mark.parametrize(
    ("changed", "rolls"),
    [
        (replace(POOL, replicas=9), False),
        (replace(POOL, profile_spec={"model": {"name": "n"}}), True),
        (replace(POOL, profile_spec=POOL.profile_spec | {"kv": {"dtype": "float16"}}), True),
        (replace(POOL, profile_spec=POOL.profile_spec | {"accelerator": {"costPerHour": 2}}), False),
        (replace(POOL, profile_spec=POOL.profile_spec | {"decode": {"slots": 9}}), False),
        (with_worker(args=["--x"]), True),
        (replace(POOL, sidecar=replace(ROUTER, sidecar_of="long")), True),
        (replace(POOL, kv_fingerprint="0" * 64), True),
    ],
    ids=["replicas", "model", "kv", "price", "times of an engine", "arguments", "sidecar", "fingerprint"],
)
def test_what_rolls_a_pool(changed, rolls):
    """Workers are replaced when what they read at the start changes, and not when their number does."""
    assert (revision(build_pool_deployment(changed)) != revision(build_pool_deployment(POOL))) is rolls


def test_times_that_a_stand_in_imitates_roll_it():
    given = {"engine": {"name": "Sim"}, "decode": {"slots": 8}}
    slower = given | {"decode": {"slots": 4}}
    before, after = (build_pool_deployment(replace(POOL, profile_spec=spec)) for spec in (given, slower))
    assert revision(before) != revision(after)


def test_builders_do_not_change_their_input():
    """The user's template is shared with the store."""
    template = {
        "metadata": {"labels": {}},
        "spec": {"containers": [{"name": "w", "env": [], "ports": []}], "volumes": []},
    }
    before = repr(template)
    build_pool_deployment(replace(POOL, template=template, sidecar=replace(ROUTER, sidecar_of="long")))
    assert repr(template) == before


def test_a_router_in_front():
    """Arguments of docs/architecture.md behind the user's own, a token for routers only, state that survives restarts."""
    deployment = build_router_deployment(ROUTER)
    spec = deployment["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    assert container["args"] == [
        "--log-level=debug", "--host=$(POD_IP)", "--http-port=8080", "--grpc-port=9090", "--route=team/chat",
        "--cluster=east", "--router-name=$(POD_NAME)", "--operator-address=prfaas.example:50051",
        "--operator-ca=/etc/prfaas/operator/ca.crt", "--operator-token=/var/run/secrets/prfaas.dev/token",
        "--state-dir=/var/lib/prfaas",
    ]  # fmt: skip
    assert spec["serviceAccountName"] == deployment["metadata"]["name"] == "chat-router"
    assert deployment["spec"]["replicas"] == 3
    volumes = {volume.pop("name"): volume for volume in spec["volumes"]}
    (source,) = volumes["prfaas-token"]["projected"]["sources"]
    assert source["serviceAccountToken"]["audience"] == "prfaas.dev/router"
    assert volumes["prfaas-state"] == {"emptyDir": {}}
    assert volumes["prfaas-operator"] == {"configMap": {"name": "chat-router"}}
    assert container["readinessProbe"]["httpGet"] == {"path": "/ready", "port": 8080}
    assert container["securityContext"]["allowPrivilegeEscalation"] is False


def test_a_router_beside_a_worker():
    """The sidecar decodes on its own pod only, and its names do not meet those of the worker."""
    pool = replace(POOL, role="decode", sidecar=replace(ROUTER, sidecar_of="long"))
    spec = build_pool_deployment(pool)["spec"]["template"]["spec"]
    first, second = spec["containers"]
    assert second["args"][-1] == "--decode-pod=$(POD_NAME)"
    assert not {port["name"] for port in first["ports"]} & {port["name"] for port in second["ports"]}
    assert spec["serviceAccountName"] == "long"


def test_other_children():
    """Service, ServiceAccount, PodDisruptionBudget and ConfigMap of a pool."""
    owner = POOL.owner
    service = build_headless_service(owner, "prefill", 8001)["spec"]
    assert service["clusterIP"] == "None"
    assert service["ports"] == [{"name": "http", "port": 8001, "targetPort": 8001, "protocol": "TCP"}]
    assert build_service_account(owner, "long", "prefill")["automountServiceAccountToken"] is False
    budget = build_disruption_budget(owner, "long", "prefill", "25%")["spec"]
    assert budget["maxUnavailable"] == "25%"
    assert budget["selector"]["matchLabels"] == service["selector"]
    assert build_profile(owner, "prefill", {"b": 1, "a": 2})["data"] == {"profile.json": '{\n  "a": 2,\n  "b": 1\n}\n'}
    front = build_router_service(owner, "x", {"a": "b"}, type_="LoadBalancer", port=80, cluster_ip=None)["spec"]
    assert front["type"] == "LoadBalancer"
    assert [(port["port"], port["targetPort"]) for port in front["ports"]] == [(80, 8080), (9090, 9090)]
    assert "clusterIP" not in front
