"""Objects to start from: those of e2e/manifests."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

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
