"""From training runs to a checkpoint: measure, train, save."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from spf import checkpoint
from spf.codec import FieldCodec
from spf.config import RunConfig, to_dict
from spf.learning.data import TrainingRun, Windows, WindowStream
from spf.learning.measure import measure_couplings, measure_gains
from spf.learning.module import FlowModule
from spf.learning.train import SNAPSHOT, fit
from spf.network.backbone import Backbone, count_parameters
from spf.pyramid.prior import coupling_to_dict


def learn(
    config: RunConfig,
    codec: FieldCodec,
    runs: Sequence[TrainingRun],
    provenance: Mapping[str, Any],
    folder: Path,
    progress: bool = True,
) -> Path:
    """Train an emulator on the runs and save it.

    Args:
        config: The experiment.
        codec: Fitted on the training scenarios.
        runs: Their members.
        provenance: What the data is; extended here by how the training went.
        folder: Gets ``training.csv``, a snapshot while it runs, and ``emulator.pt``.
        progress: Whether to show a bar.

    Returns:
        Path of the checkpoint.

    Raises:
        ValueError: If the grid does not fit the pyramid or the network.
    """
    folder.mkdir(parents=True, exist_ok=True)
    spec, size = config.pyramid, config.network
    torch.manual_seed(config.training.seed)
    rows = codec.grid.row_weights()
    gains = measure_gains(runs, spec, rows, progress)
    windows = Windows(spec, rows, gains)
    couplings = measure_couplings(runs, windows, progress)
    backbone = Backbone(
        size, spec, couplings, codec.grid.lat, codec.grid.lon, len(codec.variables), len(codec.forcings)
    )  # fmt: skip
    stream = WindowStream(runs, windows, size.patch, config.training.tokens_per_step, config.training.seed)
    module = FlowModule(backbone, rows, config.training)
    how = fit(module, stream, config.training, folder, progress)
    path = checkpoint.save(
        folder / "emulator.pt",
        {
            "config": to_dict(config),
            "codec": codec.to_dict(),
            "gains": gains,
            "couplings": {k: coupling_to_dict(c) for k, c in couplings.items()},
            "weights": {k: w.float().cpu() for k, w in module.average.weights.items()},
            "provenance": {
                **provenance,
                "training": how,
                "parameters": count_parameters(backbone),
                "seed": config.training.seed,
            },
        },
    )
    (folder / SNAPSHOT).unlink(missing_ok=True)
    return path
