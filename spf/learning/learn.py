"""From training runs to a checkpoint: measure, train, save."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from spf import checkpoint
from spf.codec import FieldCodec
from spf.config import RunConfig, expand
from spf.learning import held_out
from spf.learning.curves import write_learning_curves
from spf.learning.data import TrainingRun, WindowStream
from spf.learning.initial import load_initial
from spf.learning.measure import measure_couplings, regions
from spf.learning.module import FlowModule
from spf.learning.packing import PackedStream
from spf.learning.sources import learned_sources, measure_windows
from spf.learning.train import SNAPSHOT, fit, is_first_process
from spf.network.backbone import Backbone, count_parameters
from spf.plain import to_dict
from spf.pyramid.coupling import coupling_to_dict


def learn(
    config: RunConfig,
    codec: FieldCodec,
    runs: Sequence[TrainingRun],
    provenance: Mapping[str, Any],
    folder: Path,
    progress: bool = True,
    backbone_type: type[Backbone] = Backbone,
    stream_type: type[WindowStream] = WindowStream,
    others: Mapping[str, FieldCodec] | None = None,
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
        backbone_type: Of the network.
        stream_type: Makes what it learns from.
        others: Codecs of the sources beside ``data.source_id`` by source_id; theirs are the runs numbered 2, 3, ...

    Returns:
        Path of the checkpoint.

    Raises:
        ValueError: If the grid does not fit the pyramid or the network, no member is left to learn from, codecs and runs are of
            other sources, or the initial checkpoint does not fit.
        SystemExit: With code 0, in all processes but the first.
    """
    folder.mkdir(parents=True, exist_ok=True)
    spec, size, how = config.pyramid, config.network, config.training
    progress = progress and is_first_process()
    torch.manual_seed(how.seed)
    rows = codec.grid.row_weights()
    given, (runs, aside) = runs, held_out.set_aside(runs, how.held_out)
    windows = measure_windows(runs, spec, rows, progress, config.data.growth)
    sources = learned_sources({config.data.source_id: codec, **(others or {})}, windows, given)
    couplings = measure_couplings(runs, windows, progress, regions(codec.grid.lat_bnds, codec.grid.lon_bnds))
    backbone = backbone_type(
        size, spec, couplings, codec.grid.lat, codec.grid.lon, len(codec.variables), len(codec.forcings),
        n_sources=len(sources), forcing_pooling=codec.forcing_pooling,
    )  # fmt: skip
    checked = None
    if aside:
        unseen = stream_type(aside, windows, backbone.patches, how.tokens_per_step, held_out.SEED)
        checked = held_out.HeldOut.draw(unseen, FlowModule(backbone, rows, how))
    ancestry = {"initial": load_initial(backbone, expand(how.initial), config)} if how.initial else {}
    module = FlowModule(backbone, rows, how)
    stream = stream_type(
        runs, windows, backbone.patches, how.tokens_per_step, how.seed, shares=how.stages, times=how.times
    )
    went = fit(module, PackedStream(stream, how.parts) if how.parts > 1 else stream, how, folder, progress, checked)
    if not is_first_process():
        raise SystemExit(0)
    write_learning_curves(folder)
    path = checkpoint.save(
        folder / "emulator.pt",
        {
            "config": to_dict(config),
            "codec": codec.to_dict(),
            "marginals": {k: m.to_dict() for k, m in windows.marginals.items()},
            **({"sources": [source.to_dict() for source in sources]} if sources else {}),
            "couplings": {k: coupling_to_dict(c) for k, c in couplings.items()},
            "weights": {k: w.float().cpu() for k, w in module.average.weights.items()},
            "provenance": {
                **provenance,
                **ancestry,
                **({"also": {s.source_id: s.training_members for s in sources[1:]}} if len(sources) > 1 else {}),
                "training": {**went, "held_out": [f"{run.scenario} {run.member}" for run in aside]},
                "parameters": count_parameters(backbone),
                "seed": how.seed,
                "network": backbone.kind,
            },
        },
    )
    (folder / SNAPSHOT).unlink(missing_ok=True)
    return path
