"""Training that starts from another training's weights."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spf import checkpoint
from spf.config import NetworkConfig, RunConfig
from spf.network.backbone import Backbone
from spf.plain import from_dict
from spf.sources import UNKNOWN

FREE = {"patch", "forcing_patch", "checkpointing", "size"}
"""Settings that may differ: they shape the first and last layers only, which then start anew, or no weight at all."""


def load_initial(backbone: Backbone, path: Path, config: RunConfig) -> dict[str, Any]:
    """Give the backbone a checkpoint's weights where names and shapes agree; the rest keeps its fresh start.

    Args:
        backbone: Changed in place.
        path: The checkpoint.
        config: Of the training that begins.

    Returns:
        The ancestor's digest, source, training members and own ancestor, and the weights that start anew.

    Raises:
        ValueError: If the checkpoint's network is another one, or it or an ancestor was trained on what is now tested.
    """
    content = checkpoint.load(path)
    theirs: NetworkConfig = from_dict(NetworkConfig, content["config"]["network"], "network")
    for size in dataclasses.fields(NetworkConfig):
        then, now = getattr(theirs, size.name), getattr(config.network, size.name)
        if size.name not in FREE and then != now:
            raise ValueError(
                f"training.initial {path}: its network has {size.name} {then}, this one {now}; "
                f"set network.{size.name}: {then}, or start anew without training.initial"
            )
    ancestor = _ancestor(content, path)
    _refuse_what_saw_the_test(ancestor, config, path)
    own, given = dict(backbone.named_parameters()), for_sources(content, backbone, tuple(config.data.sources()))
    shared = [name for name, p in own.items() if name in given and given[name].shape == p.shape]
    if not any(name.startswith("blocks") for name in shared):
        raise ValueError(
            f"training.initial {path}: none of its blocks fits this network; it was made by another version"
        )
    with torch.no_grad():
        for name in shared:
            own[name].copy_(given[name])
    return {**ancestor, "fresh": sorted(set(own) - set(shared))}


def for_sources(content: Mapping[str, Any], backbone: Backbone, sources: Sequence[str]) -> dict[str, Tensor]:
    """A checkpoint's weights for a network that tells other Earth system models apart.

    Args:
        content: The checkpoint.
        backbone: The network that begins.
        sources: Names of the models it learns from, in order.

    Returns:
        The weights; models that the checkpoint does not know start from its embedding of an unknown one. A network that tells none
        apart gets the first model's embedding within that of every stage, which is the same function.
    """
    weights = dict(content["weights"])
    rows = weights.pop("source.weight", None)
    if rows is None:
        return weights
    numbers = {s["source_id"]: n for n, s in enumerate(content.get("sources", []), 1)}
    chosen = rows[[UNKNOWN, *(numbers.get(s, UNKNOWN) for s in sources)]]
    if backbone.source is None:
        return weights | {"stage.weight": weights["stage.weight"] + chosen[1]}
    return weights | {"source.weight": chosen[: backbone.source.num_embeddings]}


def _ancestor(content: Mapping[str, Any], path: Path) -> dict[str, Any]:
    known = content["provenance"]
    found = {
        "sha256": checkpoint.sha256(path),
        "source_id": known.get("source_id", content["config"]["data"]["source_id"]),
        "training_members": known.get("training_members", content["config"]["data"]["train"]),
    }
    return found | {k: known[k] for k in ("also", "initial") if k in known}


def _refuse_what_saw_the_test(ancestor: Mapping[str, Any] | None, config: RunConfig, path: Path) -> None:
    while ancestor:
        of = {**ancestor.get("also", {}), ancestor["source_id"]: ancestor["training_members"]}
        seen = sorted(set(of.get(config.data.source_id, {})) & set(config.data.test))
        if seen:
            raise ValueError(
                f"training.initial {path} has learned from {', '.join(seen)} of {config.data.source_id}, which is tested here; "
                "start from a checkpoint that has not seen the test"
            )
        ancestor = ancestor.get("initial")
