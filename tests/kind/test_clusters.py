"""Clusters on kind: the commands that are given, and what happens when one of them fails.

What kind does with them is not tested here: that needs Docker.
"""

import ipaddress
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from prfaas_local.errors import LocalClusterError
from prfaas_local.kind.clusters import MOST_CLUSTERS, Image, KindClusters, Ranges, configuration

NAMES = ("hub", "east", "west")
SIM = Image(("prfaas/sim:1", "prfaas/tiny:1"), Path("worker-images/Dockerfile"), Path())
ROUTER = Image(("prfaas/router:1",), Path("router/Dockerfile"), Path())


def test_each_cluster_is_made_from_a_configuration_with_ranges_of_its_own(
    clusters: KindClusters, recorder: Any
) -> None:
    kubeconfigs = clusters.create(NAMES)
    folder = clusters.folder
    assert recorder.commands == [
        "docker info --format '{{.ServerVersion}}'",
        "kind version",
        "kind get clusters",
        *(
            f"kind create cluster --name prfaas-{name} --config={folder / name}.kind.yaml "
            f"--kubeconfig={folder / name}.kubeconfig --wait=180s"
            for name in NAMES
        ),
    ]
    assert kubeconfigs == {name: folder / f"{name}.kubeconfig" for name in NAMES}
    contexts = [yaml.safe_load(path.read_text())["contexts"][0]["name"] for path in kubeconfigs.values()]
    assert contexts == [f"kind-prfaas-{name}" for name in NAMES]
    documents = [yaml.safe_load((folder / f"{name}.kind.yaml").read_text()) for name in NAMES]
    assert documents == [configuration(Ranges.of(number)) for number in range(3)]
    assert documents[0] == {
        "kind": "Cluster",
        "apiVersion": "kind.x-k8s.io/v1alpha4",
        "networking": {"ipFamily": "ipv4", "podSubnet": "10.100.0.0/16", "serviceSubnet": "10.150.0.0/16"},
        "nodes": [{"role": "control-plane"}],
    }


def test_no_two_ranges_overlap() -> None:
    ranges = [Ranges.of(number) for number in range(MOST_CLUSTERS)]
    networks = [ipaddress.ip_network(text) for each in ranges for text in (each.pods, each.services)]
    assert len(set(networks)) == 2 * MOST_CLUSTERS
    assert {network.prefixlen for network in networks} == {16}
    assert all(ipaddress.ip_address(each.service_ip) in ipaddress.ip_network(each.services) for each in ranges)


def test_kubeconfigs_for_pods_of_other_clusters_are_the_internal_ones(clusters: KindClusters, recorder: Any) -> None:
    clusters.create(NAMES)
    assert b"server: https://prfaas-west-control-plane:6443" in clusters.internal_kubeconfig("west")
    assert recorder.commands[-1] == "kind get kubeconfig --internal --name prfaas-west"


def test_images_are_built_once_and_loaded_into_every_cluster(clusters: KindClusters, recorder: Any) -> None:
    clusters.create(NAMES)
    recorder.commands.clear()
    clusters.load_images([SIM, ROUTER])
    assert recorder.commands == [
        "docker build --tag=prfaas/sim:1 --tag=prfaas/tiny:1 --file=worker-images/Dockerfile .",
        "docker build --tag=prfaas/router:1 --file=router/Dockerfile .",
        *(
            f"kind load docker-image --name prfaas-{name} prfaas/sim:1 prfaas/tiny:1 prfaas/router:1"
            for name in sorted(NAMES)
        ),
    ]


def test_every_node_gets_routes_to_the_pods_and_services_of_the_others(clusters: KindClusters, recorder: Any) -> None:
    clusters.create(NAMES)
    clusters.connect_networks()
    # The recorder numbers addresses by name; ranges go by the order of creation.
    address = {"east": "172.18.0.2", "hub": "172.18.0.3", "west": "172.18.0.4"}
    number = {name: index for index, name in enumerate(NAMES)}
    routes = {
        f"docker exec prfaas-{here}-control-plane ip route replace 10.{first + number[there]}.0.0/16 via {address[there]}"
        for here in NAMES
        for there in NAMES
        if here != there
        for first in (100, 150)
    }
    assert set(recorder.matching("ip route")) == routes
    assert len(recorder.matching("ip route")) == 12


def test_another_process_finds_and_deletes_what_was_made(clusters: KindClusters, recorder: Any) -> None:
    clusters.create(NAMES)
    recorder.clusters.add("somebody-elses")
    later = KindClusters(clusters.folder, run=recorder)
    assert later.names == sorted(NAMES)
    later.delete()
    assert recorder.clusters == {"somebody-elses"}
    assert later.names == []
    assert list(clusters.folder.iterdir()) == []
    before = len(recorder.commands)
    later.delete()
    assert len(recorder.commands) == before


@pytest.mark.parametrize("program", ["docker", "kind"])
def test_a_missing_program_is_named_with_the_way_out(clusters: KindClusters, recorder: Any, program: str) -> None:
    recorder.missing.add(program)
    with pytest.raises(
        LocalClusterError,
        match=rf"(?s)`{program}` does not run \(No such file or directory\); install it.*take the provider `processes`",
    ):
        clusters.create(NAMES)
    assert not clusters.folder.exists()


def test_docker_without_its_daemon_is_told(clusters: KindClusters, recorder: Any) -> None:
    recorder.failing["docker info"] = "Cannot connect to the Docker daemon"
    with pytest.raises(
        LocalClusterError,
        match=r"`docker info .*` failed with status 1:\nCannot connect to the Docker daemon\n.*start it, or take the provider",
    ):
        clusters.create(NAMES)
    assert recorder.matching("kind") == []


def test_a_cluster_that_exists_already_is_left_alone(clusters: KindClusters, recorder: Any) -> None:
    recorder.clusters.add("prfaas-west")
    with pytest.raises(
        LocalClusterError, match=r"'prfaas-west' already; `kind delete cluster --name prfaas-west` removes it"
    ):
        clusters.create(NAMES)
    assert recorder.clusters == {"prfaas-west"}
    assert recorder.matching("create") == recorder.matching("delete") == []


def test_clusters_made_before_a_failure_are_deleted(clusters: KindClusters, recorder: Any) -> None:
    recorder.failing["create cluster --name prfaas-east"] = "failed to pull image"
    with pytest.raises(
        LocalClusterError, match=r"`kind create cluster --name prfaas-east .*` failed .*:\nfailed to pull image"
    ):
        clusters.create(NAMES)
    assert recorder.clusters == set()
    assert [command.split()[4] for command in recorder.matching("delete")] == ["prfaas-east", "prfaas-hub"]
    assert clusters.names == []
    assert list(clusters.folder.iterdir()) == []
    assert recorder.matching("prfaas-west") == []


def test_an_interrupt_deletes_too(clusters: KindClusters, recorder: Any) -> None:
    recorder.raising["create cluster --name prfaas-west"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        clusters.create(NAMES)
    assert recorder.clusters == set()
    assert clusters.names == []


def test_what_cannot_be_cleaned_up_is_told_beside_the_failure_and_stays_known(
    clusters: KindClusters, recorder: Any
) -> None:
    recorder.failing["create cluster --name prfaas-east"] = "no space left"
    recorder.failing["delete cluster --name prfaas-hub"] = "docker hangs"
    with pytest.raises(LocalClusterError, match="no space left") as caught:
        clusters.create(NAMES)
    (note,) = caught.value.__notes__
    assert "prfaas-hub is left over: `kind delete cluster --name prfaas-hub" in note
    assert "docker hangs" in note
    assert clusters.names == ["hub"]
    recorder.failing.clear()
    clusters.delete()
    assert recorder.clusters == set()


def test_a_cluster_that_cannot_be_deleted_does_not_keep_the_others(clusters: KindClusters, recorder: Any) -> None:
    clusters.create(NAMES)
    recorder.failing["delete cluster --name prfaas-east"] = "busy"
    with pytest.raises(LocalClusterError, match="prfaas-east is left over"):
        clusters.delete()
    assert recorder.clusters == {"prfaas-east"}
    assert clusters.names == ["east"]


def test_a_build_that_fails_loads_nothing(clusters: KindClusters, recorder: Any) -> None:
    clusters.create(NAMES)
    recorder.failing["docker build"] = "Dockerfile:3: unknown instruction"
    with pytest.raises(LocalClusterError, match="unknown instruction"):
        clusters.load_images([SIM])
    assert recorder.matching("docker-image") == []


def test_a_command_that_hangs_is_ended_and_named(clusters: KindClusters, recorder: Any) -> None:
    recorder.raising["kind create"] = subprocess.TimeoutExpired("kind", 600)
    with pytest.raises(LocalClusterError, match=r"`kind create cluster --name prfaas-hub .*` took more than 600 s"):
        clusters.create(NAMES)
    assert recorder.clusters == set()


def test_a_node_without_an_address_is_told(clusters: KindClusters, recorder: Any) -> None:
    clusters.create(["one", "two"])
    clusters._commands = type(clusters._commands)(
        lambda arguments, **options: (
            subprocess.CompletedProcess(arguments, 0, " \n", "")
            if arguments[1] == "inspect"
            else recorder(arguments, **options)
        )
    )
    with pytest.raises(LocalClusterError, match="prfaas-one-control-plane has no address"):
        clusters.connect_networks()


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "0 clusters are asked for"),
        (["a", "a"], "a, a are not all different"),
        (["West"], "'West' is no name for a container"),
        (["../etc"], "'../etc' is no name"),
        (["-x"], "'-x' is no name"),
        ([f"c{n}" for n in range(51)], "51 clusters are asked for; there may be 1 to 50"),
    ],
)
def test_names_that_cannot_be_are_refused(
    clusters: KindClusters, recorder: Any, names: list[str], message: str
) -> None:
    with pytest.raises(LocalClusterError, match=message):
        clusters.create(names)
    assert recorder.commands == []


def test_commands_really_run(tmp_path: Path) -> None:
    """`subprocess.run` fits where the recorder is put in its place."""
    with pytest.raises(LocalClusterError, match="`docker"):
        KindClusters(tmp_path, run=lambda arguments, **options: subprocess.run(["false"], **options)).create(["one"])
