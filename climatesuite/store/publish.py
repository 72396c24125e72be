"""A state of a store becomes visible by the writing of one object, its root, which holds the metadata of everything."""

import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from climatesuite.store.layout import SCHEMA
from climatesuite.store.metadata import Nodes, group_node, node_files, root_file, root_nodes
from climatesuite.store.place import NODE, Place
from climatesuite.store.provenance import provenance_file, provenance_name

_WRITES = 16


def publish(place: Place, nodes: Nodes, provenance: Mapping[str, Any]) -> None:
    """Write provenance and root; data has to be on disk. A reader sees the state before or the state after, never another.

    `finish` cleans up, now or, after a kill, when the next build begins.

    Args:
        place: The store.
        nodes: Metadata of all groups and arrays; the root's is made here.
        provenance: Without the digests of metadata files, which are added.
    """
    files = {n: [len(c), hashlib.sha256(c).hexdigest()] for n, c in node_files(nodes).items() if n != NODE}
    name, text = provenance_file({**provenance, "files": {**provenance["files"], **files}})
    runs = [run.split("/") for run in provenance["settings"]["runs"]]
    root = group_node({"schema": SCHEMA, "runs": runs, "provenance": name})
    place.write(name, text)
    place.write(NODE, root_file({**nodes, "": root}))


def finish(place: Place) -> None:
    """Bring the metadata of single nodes, which other readers of zarr use, up to the published root; remove what it replaced."""
    with ThreadPoolExecutor(_WRITES) as pool:
        for _ in pool.map(lambda item: place.write(*item), stale_nodes(place).items()):
            pass
    name = provenance_name(place.url)
    place.remove([n for n in place.sizes() if n.startswith("provenance-") and n != name])


def stale_nodes(place: Place) -> dict[str, bytes]:
    """Metadata files of nodes that are not what the root says, and what they ought to be."""
    sizes, files = place.sizes(), node_files(root_nodes(json.loads(place.read(NODE))))
    return {p: content for p, content in files.items() if p != NODE and (p not in sizes or place.read(p) != content)}
