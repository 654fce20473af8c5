"""The operator's view of HorizontalPodAutoscalers on a real API server, with and without the right to it."""

import asyncio

import pytest
from kubernetes.aio.client import ApiClient

from prfaas_operator.actuators.autoscalers import Autoscalers
from prfaas_operator.clusters.api import ClusterApi
from prfaas_operator.clusters.credentials import hub_configuration
from prfaas_operator.clusters.watch import WatchTimes
from prfaas_operator.objects import Ref

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

POOL, OTHER = Ref("DecodePool", "default", "chat"), Ref("PrefillPool", "default", "long")


class Heard:
    """What the mirror tells."""

    def __init__(self):
        self.pools: list[Ref] = []
        self.readable = 0
        self._new = asyncio.Event()

    def changed(self, pool):
        self.pools.append(pool)
        self._new.set()

    def now_readable(self):
        self.readable += 1
        self._new.set()

    async def until(self, condition):
        async with asyncio.timeout(20):
            while not condition():
                await self._new.wait()
                self._new.clear()


@pytest.fixture
async def mirror(cluster, connections, tmp_path):
    """Make mirrors for a user who may do nothing yet."""
    kubeconfig = tmp_path / "limited.kubeconfig"
    kubeconfig.write_bytes(cluster.kubeconfig("limited"))
    client = ApiClient(await hub_configuration(kubeconfig))
    times = WatchTimes(backoff_first_s=0.05, backoff_last_s=0.1)
    tasks = []

    def make(*namespaces):
        heard = Heard()
        found = Autoscalers(
            ClusterApi(client, timeout_s=10), namespaces=namespaces, on_change=heard.changed,
            on_readable=heard.now_readable, times=times,
        )  # fmt: skip
        return found, heard, lambda: tasks.append(asyncio.create_task(found.run()))

    yield make
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await client.close()


def autoscaler(pool, maximum=4):
    return f"""
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {{name: mine, namespace: default}}
spec:
  scaleTargetRef: {{apiVersion: prfaas.dev/v1alpha1, kind: {pool.kind}, name: {pool.name}}}
  maxReplicas: {maximum}
"""


async def kubectl(cluster, *arguments, stdin=None):
    await asyncio.to_thread(cluster.kubectl, *arguments, stdin=stdin)


async def test_without_the_right_that_is_said_and_with_it_pools_have_their_autoscalers(cluster, mirror):
    """The right may come later; then changes of target and bounds are heard of, and those of its status are not."""
    found, heard, run = mirror()
    assert "not been listed" in found.fault("default")
    await found.fill()
    assert "is forbidden" in found.fault("default")
    assert "let the operator get, list and watch them" in found.fault("default")
    assert found.of(POOL) == ()
    run()
    verbs = ("--verb=get,list,watch", "--resource=horizontalpodautoscalers.autoscaling")
    await kubectl(cluster, "create", "clusterrole", "autoscalers", *verbs)
    await kubectl(cluster, "create", "clusterrolebinding", "autoscalers", "--clusterrole=autoscalers", "--user=limited")
    await heard.until(lambda: found.fault("default") is None)
    await kubectl(cluster, "apply", "-f", "-", stdin=autoscaler(POOL))
    await heard.until(lambda: [item.name for item in found.of(POOL)] == ["mine"])
    await kubectl(cluster, "apply", "-f", "-", stdin=autoscaler(POOL, 7))
    await heard.until(lambda: found.of(POOL)[0].max_replicas == 7)
    await kubectl(cluster, "apply", "-f", "-", stdin=autoscaler(OTHER, 7))
    await heard.until(lambda: found.of(OTHER))
    assert found.of(POOL) == ()
    await kubectl(cluster, "delete", "hpa", "mine")
    await heard.until(lambda: not found.of(OTHER))
    # Made, bounds, away from one pool and to the other, deleted. The controller writes the status in between.
    assert sorted(heard.pools) == sorted([POOL, POOL, POOL, OTHER, OTHER])


async def test_only_the_namespaces_that_are_watched_are_known(mirror):
    found, _, _ = mirror("team")
    assert found.fault("default") == "namespace default is not watched"
    assert found.of(POOL) == ()
