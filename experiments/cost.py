"""What drawing and training cost: operations, serial calls, measured seconds, throughput, memory.

``python experiments/cost.py`` writes ``experiments/results/cost.json`` and prints its tables; ``--quick`` does the same with a
small network and writes nothing. Weights are random and the known part of the velocity is `white_coupling`, which has no
patterns: a trained emulator's takes a little longer. Every section has a process of its own, so that its peak memory is its own,
with threads that spin while they wait: measure on a machine that does nothing else.

Ten years are drawn with equal calls a stage: by the pyramid; by one flow on the full grid in the windows of the pyramid's last
stage; by one flow on the full grid with the whole trajectory in one window; and by an autoregressive pyramid in space alone
(Pyramid Flow, nothing cached). One call on each kind of window is timed, and multiplied by windows and calls. A window of the
autoregressive pyramid holds tokens of several grids, which `Backbone.forward` does not take: there, as many tokens are sent
through the blocks alone, at some lengths, and seconds at the other lengths are interpolated.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from throughput import (
    CALLS,
    N_FIELDS,
    Setting,
    autocast,
    compute_dtype,
    counter,
    peak_bytes,
    sampling,
    segments_of,
    timed,
    training,
)

from spf.config import NetworkConfig
from spf.cost import CostModel
from spf.network.backbone import Backbone, count_parameters
from spf.network.layers import Layout, rotary
from spf.precision import native_precision
from spf.pyramid.spec import PyramidSpec, Stage
from spf.sampling.sampler import groups_of

RESULT = Path(__file__).parent / "results" / "cost.json"
TIMESCALES = ("year", "month")
SPECS = {
    "windows with halo": PyramidSpec(),
    "the paper's windows": PyramidSpec(
        core={"decade": 10, "year": 10, "month": 12}, halo={"decade": 0, "year": 0, "month": 0}
    ),
}
ONE_SHOT_TOKENS = 20_000
"""Field tokens of the longest window that is timed."""
SETTINGS = {
    "48x72": Setting((48, 72)),
    "192x288": Setting((192, 288), NetworkConfig(size="8M", patch=8, forcing_patch=8)),
}
QUICK = Setting((12, 24), NetworkConfig(width=64, depth=2, heads=2, patch=3, forcing_patch=3))


def seconds(call: Callable[[], object], rounds: int = 3, long: float = 1.0) -> float:
    """Median of some calls after a first; the first itself where it took more than ``long`` seconds."""
    first = timed(call)
    return first if first > long else statistics.median(timed(call) for _ in range(rounds))


def kinds_of(spec: PyramidSpec, timescale: str) -> list[list[tuple[Stage, int, int]]]:
    """For each stage its kinds of windows: stage, steps that a window sees, number of such windows."""
    path = spec.path(timescale)
    return [
        [(stage, group[0].end - group[0].begin, len(group)) for group in groups_of(spec, stage, segment)]
        for stage, segment in zip(path, segments_of(spec, timescale), strict=True)
    ]


def histories(model: CostModel, steps: int) -> Iterator[int]:
    """Field tokens of the autoregressive pyramid's calls, for each stage and step (see `CostModel.autoregressive`)."""
    frame = [model.frame_tokens(pooling) for pooling in model.spec.pooling]
    for s, tokens in enumerate(frame):
        for age in range(steps):
            yield tokens
            tokens += frame[max(0, s - age)]


@torch.inference_mode()
def time_window(net: Backbone, setting: Setting, stage: Stage, steps: int) -> dict[str, float]:
    """One call on one window: tokens, 10^9 operations by the formula and as counted, seconds."""
    part, model = setting.windows(stage, steps), setting.model(net.spec)
    with autocast():
        with counter() as counted:
            net(*part)
        duration = seconds(lambda: net(*part))
    formula = 1e12 * model.drawn([(stage, 1, tuple(part[0].shape[1:]))])
    return {
        "tokens": steps * model.frame_tokens(stage.pooling), "forcing_tokens": steps * setting.forcing_tokens(),
        "gflop": formula / 1e9, "counted_over_formula": counted.get_total_flops() / formula, "seconds": duration,
    }  # fmt: skip


@torch.inference_mode()
def time_blocks(net: Backbone, tokens: int, forcing_tokens: int) -> float:
    """Seconds of the blocks alone on one window of so many tokens."""
    width, numbers = net.config.width, (tokens, forcing_tokens)
    angles = [
        [a[:, None, None].to(compute_dtype()) for a in rotary(torch.zeros(n), width // net.config.heads)]
        for n in numbers
    ]
    layout = Layout([(1, tokens)], [(1, forcing_tokens)], *((cos, sin) for cos, sin in angles))
    rows, vector = [torch.randn(n, width) for n in numbers], torch.randn(1, width)

    def call() -> None:
        x, c = rows
        for block in net.blocks:
            x, c = block(x, c, vector, layout)

    with autocast():
        return seconds(call)


def trajectories(setting: Setting, lengths: int = 7) -> dict[str, Any]:
    """Every kind of call, and ten years by every method, with halos and without.

    Args:
        setting: Grid and network.
        lengths: Lengths of history that are timed.
    """
    net = setting.backbone().eval()
    calls: dict[str, dict[str, float]] = {}

    def call(stage: Stage, steps: int) -> dict[str, float]:
        name = f"{stage.key}, {steps} steps"
        if name not in calls:
            calls[name] = time_window(net, setting, stage, steps)
        return calls[name]

    longest = max(histories(setting.model(PyramidSpec()), _steps("month")))
    known = sorted({round(1 + (longest - 1) * i / (lengths - 1)) for i in range(lengths)})
    measured = [time_blocks(net, n, setting.forcing_tokens()) for n in known]
    found: dict[str, Any] = {}
    for name, spec in SPECS.items():
        model = setting.model(spec)
        for timescale in TIMESCALES:
            kinds = kinds_of(spec, timescale)
            found[f"{timescale}, {name}"] = {
                "pyramid": cost_of(model, kinds, CALLS, call),
                "one stage in windows": cost_of(model, kinds[-1:], CALLS * len(kinds), call),
                "one stage at once": _at_once(model, timescale, call),
                "autoregressive pyramid": _autoregressive(model, timescale, known, measured),
            }
    return {
        "grid": list(setting.grid), "network": asdict(setting.network), "parameters": count_parameters(net), "calls": calls,
        "history_seconds": dict(zip(map(str, known), measured, strict=True)),
        "ten_years": {name: with_ratios(costs) for name, costs in found.items()}, "peak_bytes": peak_bytes(),
    }  # fmt: skip


def cost_of(
    model: CostModel, kinds: list[list[tuple[Stage, int, int]]], calls: int, call: Callable[[Stage, int], dict[str, float]]
) -> dict[str, float | None]:  # fmt: skip
    """Some stages, each with so many calls on all its windows."""
    each = [kind for stage in kinds for kind in stage]
    return {
        "tflop": model.drawn([(stage, calls * n, (N_FIELDS, steps, 0, 0)) for stage, steps, n in each]),
        "serial_calls": calls * len(kinds),
        "seconds": sum(calls * n * call(stage, steps)["seconds"] for stage, steps, n in each),
    }


def _at_once(
    model: CostModel, timescale: str, call: Callable[[Stage, int], dict[str, float]]
) -> dict[str, float | None]:
    cost, steps = model.one_shot(timescale, calls=CALLS * len(model.spec.pooling)), _steps(timescale)
    short = steps * model.frame_tokens(1) <= ONE_SHOT_TOKENS
    duration = cost.serial_calls * call(model.spec.path(timescale)[-1], steps)["seconds"] if short else None
    return {"tflop": cost.tflop, "serial_calls": cost.serial_calls, "seconds": duration}


def _autoregressive(
    model: CostModel, timescale: str, known: Sequence[int], measured: Sequence[float]
) -> dict[str, float | None]:
    cost = model.autoregressive(timescale, calls=(CALLS,) * len(model.spec.pooling))
    duration = sum(CALLS * interpolate(n, known, measured) for n in histories(model, _steps(timescale)))
    return {"tflop": cost.tflop, "serial_calls": cost.serial_calls, "seconds": duration}


def _steps(timescale: str) -> int:
    return {"year": 10, "month": 120}[timescale]


def interpolate(x: float, known: Sequence[float], values: Sequence[float]) -> float:
    """Piecewise linear between known points, ascending."""
    i = max(1, next((j for j, k in enumerate(known) if k >= x), len(known) - 1))
    share = (x - known[i - 1]) / (known[i] - known[i - 1])
    return values[i - 1] + share * (values[i] - values[i - 1])


def with_ratios(costs: dict[str, dict[str, float | None]]) -> dict[str, dict[str, float | None]]:
    """Each method's costs and how many times the pyramid's they are."""
    ours = costs["pyramid"]

    def over(value: float | None, own: float | None) -> float | None:
        return None if value is None or own is None else value / own

    return {
        name: {**cost, **{f"{key}_ratio": over(value, ours[key]) for key, value in cost.items()}}
        for name, cost in costs.items()
    }


def counted_only() -> dict[str, Any]:
    """The paper's size on its own grid, where nothing is run: ratios of the operations alone."""
    size = NetworkConfig(width=768, depth=12, heads=12, patch=8, forcing_patch=4)
    out = {}
    for name, spec in SPECS.items():
        model = Setting((192, 288), size).model(spec)
        for timescale in TIMESCALES:
            kinds = kinds_of(spec, timescale)
            ours = model.drawn([(s, CALLS * n, (0, steps, 0, 0)) for stage in kinds for s, steps, n in stage])
            other = model.autoregressive(timescale)
            out[f"{timescale}, {name}"] = {"pyramid_tflop": ours, "autoregressive_ratio": other.tflop / ours}
    return out


SECTIONS: dict[str, Callable[[], dict[str, Any]]] = {
    "48x72": lambda: trajectories(SETTINGS["48x72"]),
    "192x288": lambda: trajectories(SETTINGS["192x288"]),
    "training": lambda: training(SETTINGS["48x72"]),
    "sampling": lambda: sampling(SETTINGS["48x72"]),
}


def apart(section: str) -> dict[str, Any]:
    """A section in a process of its own."""
    here = {"PYTHONPATH": str(Path(__file__).resolve().parents[1]), "OMP_WAIT_POLICY": "ACTIVE"}
    done = subprocess.run(
        [sys.executable, __file__, section], capture_output=True, text=True, check=True, env={**os.environ, **here}
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def quick() -> dict[str, Any]:
    """All sections in seconds, small."""
    return {
        "small": trajectories(QUICK, lengths=3), "training": training(QUICK, 2, 1, 128), "sampling": sampling(QUICK, 1),
    }  # fmt: skip


def report(found: dict[str, Any]) -> str:
    """The tables as text."""
    lines = []
    for name, section in found.items():
        if "ten_years" not in section:
            shown = (f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in section.items())
            lines += [f"{name}: " + ", ".join(shown), ""]
            continue
        ratios = [c["counted_over_formula"] for c in section["calls"].values()]
        lines += [f"{name}: counted over formula {min(ratios):.3f} to {max(ratios):.3f}"]
        lines += [f"  {call}: {c['gflop']:.2f} GFLOP, {c['seconds']:.3f} s" for call, c in section["calls"].items()]
        for case, costs in section["ten_years"].items():
            lines += [f"  ten years, {case}: TFLOP (ratio), serial calls (ratio), seconds (ratio)"]
            lines += [f"    {method:24s}" + "  ".join(_entries(cost)) for method, cost in costs.items()]
        lines += [""]
    return "\n".join(lines)


def _entries(cost: dict[str, float | None]) -> Iterator[str]:
    for key in ("tflop", "serial_calls", "seconds"):
        value, ratio = cost[key], cost[f"{key}_ratio"]
        yield "not run" if value is None else f"{value:10.4g} ({ratio:.3g})" if ratio is not None else f"{value:10.4g}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure everything, or one section."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("section", nargs="?", choices=list(SECTIONS), help="measure this alone and print it as JSON")
    parser.add_argument("--quick", action="store_true", help="a small network, in seconds; nothing is written")
    chosen = parser.parse_args(arguments)
    if chosen.section:
        sys.stdout.write(json.dumps(SECTIONS[chosen.section]()))
        return
    load = os.getloadavg()
    found = quick() if chosen.quick else {name: apart(name) for name in SECTIONS}
    found["paper_size_counted"] = counted_only()
    sys.stdout.write(report(found))
    if not chosen.quick:
        result = {
            "command": "python experiments/cost.py",
            "hardware": f"{os.cpu_count()} cores, {platform.machine()}, load average {load[0]:.2f} at the start",
            "torch": torch.__version__, "threads": torch.get_num_threads(), "precision": native_precision(),
            **found,
        }  # fmt: skip
        RESULT.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
