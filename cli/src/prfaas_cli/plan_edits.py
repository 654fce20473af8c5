"""Change single values of YAML texts where they stand, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from prfaas_cli.plan_manifests import Document
from prfaas_core.planning.plan import Plan


@dataclass(frozen=True, slots=True)
class _Edit:
    start: int
    end: int
    text: str


def planned(documents: Iterable[Document], plan: Plan) -> dict[Path, str]:
    """Return, by file, its text with the plan in it.

    Pools with `replicas` get the planned number; pools with `scaling` keep their bounds and get `minReplicas`, so that they start
    from the plan and may still grow. Routes get the threshold as a number; write `Auto` again to have the operator search.
    """
    thresholds = {cluster.name: cluster.threshold_tokens for cluster in plan.clusters}
    edits: dict[Path, list[_Edit]] = {}
    nodes: dict[Path, list[yaml.Node | None]] = {}
    for document in documents:
        path, name, kind = document.path, document.key[1], document.body.get("kind")
        if path not in nodes:
            nodes[path] = list(yaml.compose_all(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader))
            edits[path] = []
        node = nodes[path][document.index]
        if not isinstance(node, yaml.MappingNode):
            continue
        spec = document.body.get("spec") or {}
        if kind in ("PrefillPool", "DecodePool") and name in plan.counts:
            keys = ("spec", "replicas") if "replicas" in spec else ("spec", "scaling", "minReplicas")
            least = 0 if "replicas" in spec else 1
            edits[path].append(_set(node, keys, max(least, plan.counts[name])))
        elif kind == "InferenceRoute" and name in thresholds:
            edits[path].append(_set(node, ("spec", "policy", "threshold"), thresholds[name]))
    return {path: _apply(path.read_text(encoding="utf-8"), found) for path, found in edits.items()}


def _apply(text: str, edits: Iterable[_Edit]) -> str:
    for edit in sorted(edits, key=lambda edit: -edit.start):
        text = text[: edit.start] + edit.text + text[edit.end :]
    return text


def _set(node: yaml.MappingNode, keys: tuple[str, ...], value: int) -> _Edit:
    """Return the edit that sets the value at a path of keys, adding what is not there in front of the mapping's first key."""
    key, *rest = keys
    for name, child in node.value:
        if name.value != key:
            continue
        if not rest:
            return _Edit(child.start_mark.index, child.end_mark.index, str(value))
        if isinstance(child, yaml.MappingNode) and child.value:
            return _set(child, tuple(rest), value)
        return _Edit(child.start_mark.index, child.end_mark.index, _flow(rest, value))
    first = node.value[0][0].start_mark
    if node.flow_style:
        return _Edit(first.index, first.index, f"{key}: {_flow(rest, value) if rest else value}, ")
    return _Edit(first.index, first.index, f"{key}: {_flow(rest, value) if rest else value}\n{' ' * first.column}")


def _flow(keys: Iterable[str], value: int) -> str:
    text = str(value)
    for key in reversed(tuple(keys)):
        text = f"{{{key}: {text}}}"
    return text


def mapping(texts: Mapping[Path, str]) -> str:
    """Return all files as one stream of YAML documents, in order."""
    return "---\n".join(text if text.endswith("\n") else f"{text}\n" for text in texts.values())
