"""A watch that died in silence: the operator without Kopf, so that no event ever arrives."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from prfaas_operator import main
from prfaas_operator.clusters.credentials import hub_configuration
from prfaas_operator.hub import Hub
from prfaas_operator.metrics import Metrics

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


@pytest.fixture
async def deaf(cluster, operator):
    """An operator that hears nothing from the hub, in a namespace where it and the shared one agree on what to write."""
    namespace = "deaf"
    cluster.kubectl("create", "namespace", namespace)
    arguments = [
        f"--host={operator.host}", "--grpc-port=0", f"--advertise-address={operator.address}",
        f"--tls-dir={operator.folder}", f"--kubeconfig={cluster.admin_kubeconfig}", f"--namespace={namespace}",
        "--operator-namespace=prfaas-system",
    ]  # fmt: skip
    options, _ = main.parse(arguments)
    options = replace(options, resync_s=0.5)
    found = Hub(options, await hub_configuration(Path(cluster.admin_kubeconfig)), None, Metrics())
    await found.start()
    yield found, namespace
    await found.stop()


async def until(condition):
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110  the comparison sets no event
            await asyncio.sleep(0.05)


async def test_what_a_watch_misses_is_found(deaf, client, tenant):
    """Changes are taken from the regular comparison and counted; twice in a row the process asks to be restarted."""
    hub, namespace = deaf
    missed = hub.context.metrics.missed_events.labels("ModelProfile")

    def apply(name):
        body = tenant.body("ModelProfile/case-study-h20")
        body["metadata"]["name"] = name
        client.apply(body, namespace)

    assert hub.fault() is None
    await asyncio.to_thread(apply, "first")
    await until(lambda: missed._value.get() >= 1)
    await until(lambda: {ref.name for ref in hub.context.store.refs()} == {"first"})
    for number in range(10):
        await asyncio.to_thread(apply, f"other-{number}")
        if hub.fault() is not None:
            break
        before = missed._value.get()
        await until(lambda before=before: missed._value.get() > before)
    assert hub.fault() == "the watch of the hub misses changes"
