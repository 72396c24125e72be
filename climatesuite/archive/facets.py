"""What a file says it is: its global attributes, then its name, then its folders; where they disagree the first holds, and it is
said. Names of CMIP6 and CMIP5."""

import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from climatesuite.errors import DataContractError

SUFFIX = r"\.(?i:nc4?|cdf)"
"""How names of NetCDF files end, as a pattern."""
_END = r"(?:_(?P<start>\d{4,14})(?:-(?P<stop>\d{4,14}))?)?(?P<rest>-clim)?" + SUFFIX + "$"
NAME = re.compile(
    r"^(?P<variable_id>[A-Za-z0-9]+)_(?P<table_id>[A-Za-z0-9]+)_(?P<source_id>[^_]+)_(?P<experiment_id>[^_]+)"
    r"_(?P<member>(?:s\d+-)?r\d+i\d+p\d+f\d+)_(?P<grid_label>g[a-z0-9]+)" + _END
)
CMIP5_NAME = re.compile(
    r"^(?P<variable_id>[A-Za-z0-9]+)_(?P<table_id>[A-Za-z0-9]+)_(?P<source_id>[^_]+)_(?P<experiment_id>[^_]+)"
    r"_(?P<member>r\d+i\d+p\d+)(?P<grid_label>)" + _END
)
ATTRIBUTES = {"variable_id": "variable_id", "table_id": "table_id", "source_id": "source_id",
              "experiment_id": "experiment_id", "member": "variant_label", "grid_label": "grid_label"}  # fmt: skip
FOLDERS = ("source_id", "experiment_id", "member", "table_id", "variable_id", "grid_label")
"""The last folders above a version folder of the CMIP6 data reference syntax."""
VERSION = re.compile(r"[vd]\d{8}")
NO_FOLDER = re.compile(r"[/\\\x00-\x1f]|^\.")
_CMIP5_RUN = ("realization", "initialization_method", "physics_version")


def name_match(name: str) -> re.Match[str] | None:
    """The facets in a file name, where it is a name of CMIP6 or CMIP5."""
    return NAME.match(name) or CMIP5_NAME.match(name)


def version_of(path: PurePath) -> str:
    """``v20190815`` of a path, as the digits decide; "" outside a tree of versions."""
    found = next((p.name for p in path.parents if VERSION.fullmatch(p.name)), "")
    return f"v{found[1:]}" if found else ""


def said(attrs: Mapping[str, str], path: PurePath) -> tuple[dict[str, str], tuple[str, ...]]:
    """Facets of a file, and sentences on what its name or folders say otherwise.

    Args:
        attrs: Global attributes as text.
        path: Where it lies.

    Returns:
        ``variable_id, table_id, source_id, experiment_id, member, grid_label``, "" where nothing says it.

    Raises:
        DataContractError: If one of them could name no folder.
    """
    stated, named, above = _stated(attrs), name_match(path.name), _folders(path)
    facets, notes = {}, []
    for facet in ATTRIBUTES:
        name = named.group(facet) if named else ""
        value = stated.get(facet) or name or above.get(facet, "")
        for where, other in (("name", name), ("folder", above.get(facet, ""))):
            if other and other != value:
                holds = "the attribute holds" if stated.get(facet) else "the name holds"
                notes.append(f"{facet} is {value!r}, the {where} says {other!r}: {holds}")
        facets[facet] = value
    check_names(facets)
    return facets, tuple(notes)


def check_names(facets: Mapping[str, Any]) -> None:
    """Refuse a run that could not be a folder of a store: with a slash it would be a folder in a folder.

    Raises:
        DataContractError: With the facet.
    """
    for facet in ("source_id", "experiment_id", "member"):
        if NO_FOLDER.search(facets[facet]):
            raise DataContractError(
                facet, f"{facet} is {facets[facet]!r}, which can be no folder of a store", "a name without slashes",
                "correct the attribute",
            )  # fmt: skip


def _stated(attrs: Mapping[str, str]) -> dict[str, str]:
    """Facets by global attributes, of CMIP6 or CMIP5."""
    stated = {facet: attrs.get(attribute, "") for facet, attribute in ATTRIBUTES.items()}
    start = attrs.get("sub_experiment_id", "none")
    if start != "none" and stated["member"]:  # hindcasts: the start date is a part of the member's label
        stated["member"] = f"{start}-{stated['member']}"
    stated["table_id"] = stated["table_id"].removeprefix("Table ").partition(" ")[0]  # Table Amon (26 July 2011)
    if attrs.get("project_id") == "CMIP5":
        run = [attrs.get(n, "") for n in _CMIP5_RUN]
        stated["source_id"] = attrs.get("model_id", "")
        stated["member"] = "r{}i{}p{}".format(*run) if all(n.isdigit() for n in run) else ""
    return stated


def _folders(path: PurePath) -> dict[str, str]:
    """Facets by the folders above a version folder, where they look like the data reference syntax."""
    parts = path.parts[:-1]
    at = next((i for i in range(len(parts) - 1, -1, -1) if VERSION.fullmatch(parts[i])), -1)
    above = parts[max(0, at - len(FOLDERS)) : at] if at >= len(FOLDERS) else ()
    facets = dict(zip(FOLDERS, above, strict=False)) if above else {}
    return facets if re.fullmatch(r"(s\d+-)?r\d+i\d+p\d+(f\d+)?", facets.get("member", "")) else {}
