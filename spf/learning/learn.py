"""From training runs to a checkpoint: measure, train, save."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from spf import checkpoint
from spf.codec import FieldCodec
from spf.config import RunConfig, expand, to_dict
from spf.learning import held_out
from spf.learning.curves import write_learning_curves
from spf.learning.data import TrainingRun, Windows, WindowStream
from spf.learning.initial import load_initial
from spf.learning.measure import measure_couplings, measure_gains
from spf.learning.module import FlowModule
from spf.learning.packing import PackedStream
from spf.learning.train import SNAPSHOT, fit, is_first_process
from spf.network.backbone import Backbone, count_parameters
from spf.pyramid.coupling import coupling_to_dict


def learn(
    config: RunConfig,
    codec: FieldCodec,
    runs: Sequence[TrainingRun],
    provenance: Mapping[str, Any],
    folder: Path,
    progress: bool = True,
) -> Path:
    """Train an emulator on the runs and save it.

    Where several processes learn together, only the first one returns: the others end here, as what follows is not theirs.

    Args:
        config: The experiment.
        codec: Fitted on the training scenarios.
        runs: Their members.
        provenance: What the data is; extended here by how the training went.
        folder: Gets ``training.csv``, ``learning.png``, a snapshot while it runs, and ``emulator.pt``.
        progress: Whether to show a bar.

    Returns:
        Path of the checkpoint.

    Raises:
        ValueError: If the grid does not fit the pyramid or the network, no member is left to learn from, or the initial
            checkpoint does not fit.
        SystemExit: With code 0, in all processes but the first.
    """
    folder.mkdir(parents=True, exist_ok=True)
    spec, size, how = config.pyramid, config.network, config.training
    progress = progress and is_first_process()
    torch.manual_seed(how.seed)
    rows = codec.grid.row_weights()
    runs, aside = held_out.set_aside(runs, how.held_out)
    gains = measure_gains(runs, spec, rows, progress)
    windows = Windows(spec, rows, gains)
    couplings = measure_couplings(runs, windows, progress)
    backbone = Backbone(
        size, spec, couplings, codec.grid.lat, codec.grid.lon, len(codec.variables), len(codec.forcings)
    )  # fmt: skip
    checked = None
    if aside:
        unseen = WindowStream(aside, windows, backbone.patches, how.tokens_per_step, held_out.SEED)
        checked = held_out.HeldOut.draw(unseen, FlowModule(backbone, rows, how))
    ancestry = {"initial": load_initial(backbone, expand(how.initial), config)} if how.initial else {}
    module = FlowModule(backbone, rows, how)
    stream = WindowStream(runs, windows, backbone.patches, how.tokens_per_step, how.seed, shares=how.stages)
    went = fit(module, PackedStream(stream, how.parts) if how.parts > 1 else stream, how, folder, progress, checked)
    if not is_first_process():
        raise SystemExit(0)
    write_learning_curves(folder)
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
                **ancestry,
                "training": {**went, "held_out": [f"{run.scenario} {run.member}" for run in aside]},
                "parameters": count_parameters(backbone),
                "seed": how.seed,
            },
        },
    )
    (folder / SNAPSHOT).unlink(missing_ok=True)
    return path
