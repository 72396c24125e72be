"""Networks from checkpoints."""

from typing import Any

from spf.config import NetworkConfig
from spf.network.backbone import Backbone
from spf.plain import from_dict
from spf.pyramid.coupling import coupling_from_dict
from spf.pyramid.spec import PyramidSpec


def make_backbone(content: dict[str, Any], backbone_type: type[Backbone] = Backbone) -> Backbone:
    """A network of the checkpoint's shape, untrained.

    Raises:
        ValueError: If the checkpoint holds another type of network.
    """
    kind = content["provenance"].get("network", Backbone.kind)
    if kind != backbone_type.kind:
        raise ValueError(
            f"checkpoint: its network is {kind}, not {backbone_type.kind}; load it with the emulator of that kind"
        )
    config = content["config"]
    spec, size = from_dict(PyramidSpec, config["pyramid"]), from_dict(NetworkConfig, config["network"])
    couplings = {k: coupling_from_dict(c) for k, c in content["couplings"].items()}
    grid = content["codec"]["grid"]
    n_fields, n_forcings = len(content["codec"]["scales"]), len(content["codec"]["forcing_mean"])
    return backbone_type(
        size, spec, couplings, grid["lat"].tolist(), grid["lon"].tolist(), n_fields, n_forcings, len(content.get("sources", [])),
        forcing_pooling=content["codec"]["forcing_pooling"],
    )  # fmt: skip
