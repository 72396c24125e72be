"""Training that starts from another training's weights."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from spf import checkpoint
from spf.config import NetworkConfig, RunConfig, from_dict
from spf.network.backbone import Backbone

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
    own, given = dict(backbone.named_parameters()), content["weights"]
    shared = [name for name, p in own.items() if name in given and given[name].shape == p.shape]
    if not any(name.startswith("blocks") for name in shared):
        raise ValueError(
            f"training.initial {path}: none of its blocks fits this network; it was made by another version"
        )
    with torch.no_grad():
        for name in shared:
            own[name].copy_(given[name])
    return {**ancestor, "fresh": sorted(set(own) - set(shared))}


def _ancestor(content: Mapping[str, Any], path: Path) -> dict[str, Any]:
    known = content["provenance"]
    found = {
        "sha256": checkpoint.sha256(path),
        "source_id": known.get("source_id", content["config"]["data"]["source_id"]),
        "training_members": known.get("training_members", content["config"]["data"]["train"]),
    }
    return {**found, "initial": known["initial"]} if "initial" in known else found


def _refuse_what_saw_the_test(ancestor: Mapping[str, Any] | None, config: RunConfig, path: Path) -> None:
    while ancestor:
        seen = sorted(set(ancestor["training_members"]) & set(config.data.test))
        if seen and ancestor["source_id"] == config.data.source_id:
            raise ValueError(
                f"training.initial {path} has learned from {', '.join(seen)} of {config.data.source_id}, which is tested here; "
                "start from a checkpoint that has not seen the test"
            )
        ancestor = ancestor.get("initial")
