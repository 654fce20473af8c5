"""What one operator costs, and whether it keeps its period, with 10 to 200 pools over 20 member clusters.

    python benchmarks/scale/run.py [--pools 10 50 100 200] [--minutes 3] [--profile FOLDER] [--write]

Everything but the workers is real: a control plane that is hub and members (each MemberCluster has its own client, watches and
namespace there), Prometheus, and the operator as a process. The pods of all pools are played: their metrics are vLLM's under a load that
moves, and a kubelet reports them ready, so pools scale all the time. Everything is on this machine, and shares its cores.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import figures
import fleet
import httpx
from engines import Engines
from kubelet import Kubelet

from prfaas_local import binaries
from prfaas_local.certificates import Authority
from prfaas_local.cluster import Cluster
from prfaas_local.testing import control_plane

REPOSITORY = Path(__file__).resolve().parents[2]
PERIOD_S = 5.0
SETTLE_S = 60.0
"""After the last pool has a pod: rates need samples, and the burst of the start is no part of what is measured."""
SCRAPE_S = 10
HUB_USER, MEMBER_USER = "scale-hub", "scale-member"
CPU_CORES, MEMORY_BYTES = 1.0, 400e6
"""What the operator may take."""


@dataclass(frozen=True, slots=True)
class Result:
    """The figures of one run."""

    pools: int
    pods: int
    changes: int
    cpu_cores: float
    rss_bytes: int
    peak_bytes: int
    threads: int
    sockets: int
    hub_rps: float
    member_rps: float
    prometheus_qps: float
    looks: figures.Looks
    decisions: Counter[str]
    look_s: float

    @property
    def unanswered(self) -> int:
        """Looks at which Prometheus did not answer."""
        return sum(number for reason, number in self.decisions.items() if reason.startswith("Prometheus"))


@contextmanager
def started(name: str, command: list[str], folder: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | environment)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def prepare(cluster: Cluster) -> None:
    """Make the kinds, two users that the API server counts apart, and the namespaces."""
    # No node is there to place a pod on, and nobody has to look for one.
    cluster.children["kube-scheduler"].stop(0)
    cluster.kubectl("apply", "--server-side", "-f", str(REPOSITORY / "crds"))
    cluster.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
    objects: list[dict[str, Any]] = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        for name in ("prfaas-system", *fleet.namespaces())
    ]
    for user in (HUB_USER, MEMBER_USER):
        objects.append(
            {
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": user},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
                "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
            }
        )  # fmt: skip
        everything = {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "clusterScope": True, "namespaces": ["*"]}
        rule = {
            "subjects": [{"kind": "User", "user": {"name": user}}],
            "resourceRules": [everything],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
        }
        objects.append(
            {
                "apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "FlowSchema", "metadata": {"name": user},
                "spec": {
                    # As service accounts have it, but counted apart.
                    "matchingPrecedence": 500, "priorityLevelConfiguration": {"name": "workload-low"},
                    "distinguisherMethod": {"type": "ByUser"}, "rules": [rule],
                },
            }
        )  # fmt: skip
    cluster.kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))


def apply(cluster: Cluster, bodies: Iterator[tuple[str, dict[str, Any]]]) -> None:
    items = [body | {"metadata": body["metadata"] | {"namespace": namespace}} for namespace, body in bodies]
    for start in range(0, len(items), 100):
        part = {"apiVersion": "v1", "kind": "List", "items": items[start : start + 100]}
        cluster.kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(part))


def prometheus_command(folder: Path, engines: Engines, address: str) -> list[str]:
    job = {
        "job_name": "pods",
        "scrape_interval": f"{SCRAPE_S}s",
        "http_sd_configs": [{"url": f"http://{engines.address}/targets", "refresh_interval": f"{SCRAPE_S}s"}],
    }
    document = {"global": {"query_log_file": str(folder / "queries.log")}, "scrape_configs": [job]}
    (folder / "prometheus.json").write_text(json.dumps(document))
    return [
        str(binaries.find("prometheus")), f"--config.file={folder / 'prometheus.json'}",
        f"--storage.tsdb.path={folder / 'samples'}", f"--web.listen-address={address}", "--log.level=warn",
    ]  # fmt: skip


def operator_command(folder: Path, cluster: Cluster, host: str, prometheus: str) -> list[str]:
    authority = Authority("prfaas")
    pair = authority.server("prfaas-operator", [host])
    for name, pem in (("tls.crt", pair.certificate), ("tls.key", pair.key), ("ca.crt", authority.certificate)):
        (folder / name).write_bytes(pem)
    kubeconfig = folder / "hub.kubeconfig"
    kubeconfig.write_bytes(cluster.kubeconfig(HUB_USER))
    return [
        str(Path(sys.executable).with_name("prfaas-operator")), f"--host={host}", f"--advertise-address={host}:50051",
        f"--tls-dir={folder}", f"--kubeconfig={kubeconfig}", "--operator-namespace=prfaas-system",
        f"--prometheus-url=http://{prometheus}", f"--autoscaling-interval-s={PERIOD_S:g}",
    ]  # fmt: skip


def metric(text: str, name: str) -> float:
    lines = (line for line in text.splitlines() if line.startswith(name) and line[len(name)] in "{ ")
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


def decisions(text: str) -> Counter[str]:
    found: Counter[str] = Counter()
    for line in text.splitlines():
        if line.startswith("prfaas_operator_scaling_decisions_total{"):
            labels, number = line.rsplit(" ", 1)
            found[labels.split('reason="')[1].split('"')[0]] += int(float(number))
    return found


async def run(count: int, minutes: float, profile: Path | None) -> Result:
    """Run one fleet and return its figures."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        cluster = stack.enter_context(control_plane(folder / "cluster", "scale"))
        await asyncio.to_thread(prepare, cluster)
        pools = fleet.pools(count)
        engines = Engines(pools)
        await engines.start()
        kubelet = Kubelet(cluster.server, cluster.folder / "pki", engines)
        kubelet.start()
        try:
            return await _measured(stack, folder, cluster, pools, engines, kubelet, minutes, profile)
        finally:
            await kubelet.stop()
            await engines.stop()


async def _measured(
    stack: ExitStack, folder: Path, cluster: Cluster, pools: list[fleet.Pool], engines: Engines, kubelet: Kubelet,
    minutes: float, profile: Path | None,
) -> Result:  # fmt: skip
    base = f"127.{cluster.network.pods}.9"
    prometheus, host = f"{base}.1:9090", f"{base}.2"
    stack.enter_context(started("prometheus", prometheus_command(folder, engines, prometheus), folder))
    await asyncio.to_thread(apply, cluster, fleet.members(cluster.kubeconfig(MEMBER_USER)))
    operator = stack.enter_context(started("operator", operator_command(folder, cluster, host, prometheus), folder))
    await asyncio.to_thread(apply, cluster, fleet.bodies(pools))
    log = folder / "operator.log"

    def alive() -> None:
        kubelet.check()
        if operator.poll() is not None:
            raise RuntimeError(f"the operator has ended:\n{log.read_text()[-3000:]}")

    async def until(condition: Any, what: str, deadline_s: float) -> None:
        end_s = time.monotonic() + deadline_s
        while not condition():
            alive()
            if time.monotonic() > end_s:
                raise RuntimeError(f"not within {deadline_s:g} s: {what}\n{log.read_text()[-3000:]}")
            await asyncio.sleep(0.5)

    await until(lambda: engines.pods >= len(pools), "a pod in each pool", 120 + 2 * len(pools))
    await asyncio.sleep(SETTLE_S)
    with cluster.client() as api, httpx.Client(trust_env=False, timeout=10) as http:

        def seen() -> tuple[Counter[str], Counter[str], str]:
            return (
                figures.dispatched(api.get("/metrics").text),
                figures.asked(http.get(f"http://{prometheus}/metrics").text),
                http.get(f"http://{host}:8080/metrics").text,
            )

        calls, queries, own = await asyncio.to_thread(seen)
        lines = len(log.read_text().splitlines())
        since, first = datetime.now(UTC), figures.usage(operator.pid, time.monotonic())
        if profile is not None:
            name = profile / f"{len(pools)}.txt"
            command = [
                "py-spy",
                "record",
                "-p",
                str(operator.pid),
                "-d",
                f"{60 * minutes:.0f}",
                "-f",
                "raw",
                "-o",
                str(name),
            ]
            stack.enter_context(started("profile", command, folder))
        samples = [first]
        while samples[-1].at_s - first.at_s < 60 * minutes:
            await asyncio.sleep(1)
            alive()
            samples.append(figures.usage(operator.pid, time.monotonic()))
        until_, last = datetime.now(UTC), samples[-1]
        calls_after, queries_after, own_after = await asyncio.to_thread(seen)
    elapsed_s = last.at_s - first.at_s
    made, answered = calls_after - calls, queries_after - queries
    took = "prfaas_operator_scaling_look_seconds"
    ended, total_s = (metric(own_after, f"{took}_{part}") - metric(own, f"{took}_{part}") for part in ("count", "sum"))
    entries = [json.loads(line) for line in log.read_text().splitlines()[lines:] if line.startswith("{")]
    trouble = {entry["message"]: entry for entry in entries if entry.get("level") in ("warning", "error")}
    for message, entry in trouble.items():
        number = sum(other["message"] == message for other in entries)
        print(f"{len(pools)} pools: the operator said {number} times: {entry}", file=sys.stderr)
    return Result(
        pools=len(pools),
        pods=engines.pods,
        changes=sum(entry["message"] == "scaled" for entry in entries),
        cpu_cores=(last.cpu_s - first.cpu_s) / elapsed_s,
        rss_bytes=last.rss_bytes,
        peak_bytes=max(sample.rss_bytes for sample in samples),
        threads=last.threads,
        sockets=last.sockets,
        hub_rps=made[HUB_USER] / elapsed_s,
        member_rps=made[MEMBER_USER] / elapsed_s,
        prometheus_qps=sum(answered.values()) / elapsed_s,
        looks=figures.looks((folder / "queries.log").read_text().splitlines(), since, until_),
        decisions=decisions(own_after) - decisions(own),
        look_s=total_s / max(1.0, ended),
    )


def table(results: list[Result]) -> str:
    head = (
        "| pools | pods | sizes changed | time between looks, p50 / p99 / max, s | a look, ms | without answer | "
        "CPU, cores | memory, MB | queries/s | Prometheus, ms a look | requests/s to the hub | to members | threads | sockets |"
    )
    lines = [head, "| ---: " * head.count(" | ") + "| ---: |"]
    for found in results:
        looks = found.looks
        apart = " / ".join(f"{looks.apart(quantile):.2f}" for quantile in (0.5, 0.99, 1.0))
        cells = (
            found.pools, found.pods, found.changes, apart, f"{1000 * found.look_s:.0f}",
            found.unanswered, f"{found.cpu_cores:.2f}", f"{found.peak_bytes / 1e6:.0f}",
            f"{found.prometheus_qps:.1f}", f"{1000 * looks.evaluation_mean_s:.1f}", f"{found.hub_rps:.1f}",
            f"{found.member_rps:.1f}", found.threads, found.sockets,
        )  # fmt: skip
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--pools", type=int, nargs="+", default=[10, 50, 100, 200], help="sizes of the fleet, even numbers"
    )
    parser.add_argument("--minutes", type=float, default=3, help="for how long each is measured")
    parser.add_argument("--profile", type=Path, help="folder for stacks that py-spy samples; it has to be on PATH")
    parser.add_argument("--write", action="store_true", help="write REPORT.md beside this file")
    arguments = parser.parse_args()
    results = []
    for count in arguments.pools:
        found = asyncio.run(run(count, arguments.minutes, arguments.profile))
        results.append(found)
        print(table([found]), file=sys.stderr)
        print(f"{found.looks.pools} pools were looked at: {dict(found.decisions)}", file=sys.stderr)
        if arguments.write:
            write(results, arguments.minutes)
    print(table(results))


def write(results: list[Result], minutes: float) -> None:
    intro = (
        "# One operator and 10 to 200 pools\n\n"
        f"Taken with `python benchmarks/scale/run.py --minutes {minutes:g} --write`: {fleet.MEMBERS} member clusters, "
        f"a look at every pool each {PERIOD_S:g} s, on {os.cpu_count()} shared {platform.machine()} cores that also run "
        f"the control plane, Prometheus and what plays the pods, Python {platform.python_version()}.\n"
        "[docs/scale.md](../../docs/scale.md) says how to read it.\n\n"
    )
    Path(__file__).with_name("REPORT.md").write_text(intro + table(results) + "\n")


if __name__ == "__main__":
    main()
