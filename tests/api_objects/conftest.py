"""Objects to start from, those of e2e/manifests, and a real API server that has our CRDs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import kubernetes
import pytest
import yaml

from prfaas_local.cluster import Cluster
from prfaas_local.testing import control_plane
from prfaas_operator import api

REPOSITORY = Path(__file__).resolve().parents[2]


def _manifests() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for path in sorted((REPOSITORY / "e2e" / "manifests").glob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            found[f"{document['kind']}/{document['metadata']['name']}"] = document
    return found


@pytest.fixture
def manifests() -> dict[str, dict[str, Any]]:
    """The objects of e2e/manifests by KIND/NAME."""
    return _manifests()


@pytest.fixture
def patched(manifests: dict[str, dict[str, Any]]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Return the object that a case of the tables beside names, with the case's patch."""

    def patch(case: dict[str, Any]) -> dict[str, Any]:
        found = merged(manifests[case["object"]], case["patch"])
        assert isinstance(found, dict)
        return found

    return patch


def merged(value: Any, patch: Any) -> Any:
    """Return `value` with a JSON merge patch (RFC 7396)."""
    if not isinstance(patch, dict):
        return deepcopy(patch)
    result = deepcopy(value) if isinstance(value, dict) else {}
    for key, change in patch.items():
        if change is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), change)
    return result


class ApiServer:
    """A real API server, asked as a client that sends strict validation."""

    def __init__(self, cluster: Cluster) -> None:
        self.kubectl = cluster.kubectl
        self._objects = kubernetes.client.CustomObjectsApi(
            kubernetes.config.new_client_from_config(str(cluster.admin_kubeconfig))
        )

    def create(self, body: dict[str, Any], namespace: str, *, dry_run: bool = False) -> dict[str, Any]:
        """Create an object and return it; `RefusedError` if it is not accepted."""
        # The client reads the namespace from its argument, and from there only.
        body = merged(body, {"metadata": {"namespace": namespace}})
        options = {"dry_run": "All"} if dry_run else {}
        return self._call(
            self._objects.create_namespaced_custom_object,
            body["kind"],
            namespace,
            body,
            field_validation="Strict",
            **options,
        )

    def patch(self, kind: str, name: str, patch: dict[str, Any], namespace: str) -> dict[str, Any]:
        """Send a JSON merge patch and return the object; `RefusedError` if it is not accepted."""
        return self._call(
            self._objects.patch_namespaced_custom_object,
            kind, namespace, name, patch, field_validation="Strict", _content_type="application/merge-patch+json",
        )  # fmt: skip

    @staticmethod
    def _call(method: Callable[..., Any], kind: str, namespace: str, *arguments: Any, **options: Any) -> dict[str, Any]:
        plural = next(found.definition.plural for found in api.KINDS if found.__name__ == kind)
        try:
            found = method(api.GROUP, api.VERSION, namespace, plural, *arguments, **options)
        except kubernetes.client.ApiException as error:
            if error.status not in (400, 422):
                raise
            raise RefusedError(json.loads(error.body)["message"]) from None
        assert isinstance(found, dict)
        return found


class RefusedError(Exception):
    """The API server refuses an object; the text is its message."""


@pytest.fixture(scope="session")
def api_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """A control plane with the CRDs of this tree."""
    with control_plane(tmp_path_factory.mktemp("objects")) as cluster:
        cluster.kubectl("apply", "--server-side", "-f", str(REPOSITORY / "crds"))
        cluster.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
        yield ApiServer(cluster)


@pytest.fixture
def refused() -> type[Exception]:
    """What the API server's methods raise."""
    return RefusedError


@pytest.fixture
def namespace(api_server: ApiServer, request: pytest.FixtureRequest) -> str:
    """A namespace of the test's own."""
    name = f"t{abs(hash(request.node.nodeid)):x}"
    api_server.kubectl("create", "namespace", name)
    return name


@pytest.fixture
def applied(api_server: ApiServer, namespace: str, manifests: dict[str, dict[str, Any]]) -> str:
    """A namespace with all objects of e2e/manifests."""
    for body in manifests.values():
        api_server.create(body, namespace)
    return namespace
