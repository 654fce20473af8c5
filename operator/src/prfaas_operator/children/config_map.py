"""The files that workers and routers read."""

import json
from collections.abc import Mapping
from typing import Any

from prfaas_operator.children.metadata import Owner, Role, build_metadata

PROFILE_FILE = "profile.json"
CA_FILE = "ca.crt"


def profile_name(pool: str) -> str:
    return f"{pool}-profile"


def build_profile(owner: Owner, role: Role, profile_spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return the ConfigMap with a pool's ModelProfile `spec` as JSON."""
    text = json.dumps(profile_spec, sort_keys=True, indent=2) + "\n"
    return _config_map(owner, profile_name(owner.name), role, {PROFILE_FILE: text})


def build_router_files(owner: Owner, name: str, ca_pem: str) -> dict[str, Any]:
    """Return the ConfigMap with the authority that signs the operator's certificate."""
    return _config_map(owner, name, "router", {CA_FILE: ca_pem})


def _config_map(owner: Owner, name: str, role: Role, data: dict[str, str]) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": build_metadata(owner, name, role), "data": data}
