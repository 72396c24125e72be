"""The metadata of a store as one object: the root holds that of all groups and arrays, so that writing it publishes all at once."""

import copy
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Nodes = dict[str, dict[str, Any]]
"""Metadata by path, "" the root."""


def group_node(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata of a group."""
    return {"attributes": {k: plain(v) for k, v in attrs.items()}, "zarr_format": 3, "node_type": "group"}


def plain(value: Any) -> Any:
    """A numpy scalar as Python's own."""
    return value.item() if isinstance(value, np.generic) else value


def root_nodes(root: Mapping[str, Any]) -> Nodes:
    """All nodes from the root's content; empty where it holds no others."""
    inside = (root.get("consolidated_metadata") or {}).get("metadata") or {}
    if not inside:
        return {}
    bare = {k: v for k, v in root.items() if k != "consolidated_metadata"}
    return {"": bare, **{str(k): _bare(v) for k, v in inside.items()}}


def node_files(nodes: Nodes) -> dict[str, bytes]:
    """The files of all nodes by name; groups of arrays hold the metadata of everything in them, as any zarr reader expects it."""
    return {f"{path}/zarr.json".lstrip("/"): _encoded(_consolidated(nodes, path)) for path in nodes}


def root_file(nodes: Nodes) -> bytes:
    """The root's content."""
    return _encoded(_consolidated(nodes, ""))


def with_members(nodes: Nodes, groups: Sequence[str], members: Sequence[str]) -> Nodes:
    """Nodes in which groups have more members: their list, and the length of every array along ``member``."""
    out = copy.deepcopy(nodes)
    for group in groups:
        out[group]["attributes"]["members"] = list(members)
        for path, node in out.items():
            dims = node.get("dimension_names") or []
            if path.startswith(f"{group}/") and dims and dims[0] == "member":
                node["shape"][0] = len(members)
    return out


def _consolidated(nodes: Nodes, path: str) -> dict[str, Any]:
    node, prefix = nodes[path], f"{path}/" if path else ""
    inside = {p.removeprefix(prefix): n for p, n in nodes.items() if p and p != path and p.startswith(prefix)}
    if path and (node["node_type"] != "group" or any(n["node_type"] == "group" for n in inside.values())):
        return node
    return {**node, "consolidated_metadata": _inline({p: _listed(n) for p, n in inside.items()})}


def _listed(node: dict[str, Any]) -> dict[str, Any]:
    return {**node, "consolidated_metadata": _inline({})} if node["node_type"] == "group" else node


def _bare(node: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in node.items() if k != "consolidated_metadata"}


def _inline(metadata: dict[str, Any]) -> dict[str, Any]:
    return {"kind": "inline", "must_understand": False, "metadata": metadata}


def _encoded(node: dict[str, Any]) -> bytes:
    return json.dumps(node, sort_keys=True).encode()
