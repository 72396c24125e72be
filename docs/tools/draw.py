"""Draws the figures of this documentation into a folder: ``python docs/tools/draw.py docs/images``.

Everything comes from the packages themselves or from committed results; no data is needed. Fields are of the synthetic Earth
system, seed 0.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import cartopy.crs as ccrs
import numpy as np
import torch
import xarray as xr
from matplotlib.figure import Figure

from climatesuite.archive.synthetic import member_fields, spec_of
from climatesuite.archive.synthetic_world import centres
from climatesuite.baselines.names import ENERGY_BALANCE, PATTERN_SCALING
from climatesuite.evaluate import plots
from climatesuite.evaluate.map_geometry import levels
from climatesuite.forcing.energy_balance import EnergyBalance, GlobalMean, ar6_forcing, calibration_of
from spf.pyramid.jump import jump
from spf.pyramid.operators import pool_space, pool_time, upsample
from spf.pyramid.spec import PyramidSpec

ROOT = Path(__file__).resolve().parents[2]
GRID = (48, 72)
INK = "#222222"


def pyramid() -> Figure:
    """One member of the synthetic world as the three stages see it: a decade, its fourth year, that year's July."""
    spec = spec_of("SYNTHETIC-A", GRID)
    lat, _ = centres(spec)
    months = torch.from_numpy(member_fields(spec, "ssp585", 0, (2060, 2069))["tas"])[None]  # (var, time, lat, lon)
    mean = torch.from_numpy(member_fields(spec, "ssp585", 0, (2015, 2024))["tas"])[None]
    seasons = mean.reshape(1, 10, 12, *GRID).mean(1)
    departure = months - seasons.repeat(1, 10, 1, 1)
    rows, days = (
        torch.from_numpy(np.cos(np.deg2rad(lat))),
        torch.tensor([31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31.0]),
    )
    years = pool_time(departure, 12, days.repeat(10))
    decade = pool_time(departure, 120, days.repeat(10))
    stages = [
        ("stage 0: a decade, 12×18", pool_space(decade[0, 0], 4, rows)),
        ("stage 1: a year of it, 24×36", pool_space(years[0, 3], 2, rows)),
        ("stage 2: a month of that, 48×72", departure[0, 42]),
    ]
    figure = Figure(figsize=(9.0, 2.4), dpi=120, layout="constrained", facecolor="white")
    for i, (title, values) in enumerate(stages):
        axes = figure.add_subplot(1, 3, i + 1, projection=ccrs.Robinson())
        plots.frame_map(axes, title)
        shape = values.shape
        field = xr.DataArray(
            values.numpy(), dims=("lat", "lon"),
            coords={"lat": -90 + (np.arange(shape[0]) + 0.5) * 180 / shape[0], "lon": (np.arange(shape[1]) + 0.5) * 360 / shape[1]},
        )  # fmt: skip
        mesh = plots.draw_field(axes, field, "RdBu_r", levels(-6.0, 6.0), "both")
    plots.colour_bar(mesh, figure.axes[:3], "near-surface temperature minus 2015–2024, K")
    return figure


def levels_of_noise() -> Figure:
    """Noise along the flow of each path, stage after stage; the leaps are the jumps."""
    figure = Figure(figsize=(7.0, 2.9), dpi=120, layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    for timescale, colour, width in zip(("month", "year", "decade"), plots.PALETTE, (2.6, 1.9, 1.2), strict=False):
        for stage in PyramidSpec().path(timescale):
            line = ([stage.index, stage.index + 1], [stage.sigma_start, stage.sigma_end])
            axes.plot(*line, color=colour, linewidth=width, label=timescale if stage.index == 0 else None)
            if stage.index:
                axes.plot(
                    [stage.index] * 2, [stage.sigma_parent, stage.sigma_start], color=colour, linewidth=1, linestyle=":"
                )
    plots.style(axes, "", "stage and flow time", "noise coefficient σ")
    axes.set_xticks([0, 1, 2, 3], ["noise", "jump 1", "jump 2", "field"])
    axes.legend(title="sampled timescale", frameon=False, fontsize=8, title_fontsize=8)
    return figure


def jumps() -> Figure:
    """Noise before a jump, after mere repetition, and after the jump, with its zonal power."""
    stage = PyramidSpec(pooling=(4, 1), sigma_end=(2 / 3, 0.0)).path("decade")[1]
    generator = torch.Generator().manual_seed(0)
    coarse = stage.sigma_parent * torch.randn(4000, 1, 1, 6, 18, generator=generator)
    fine = torch.randn(4000, 1, 1, 24, 72, generator=generator)
    repeated, whole = upsample(coarse, stage.factors), jump(coarse, stage, fine)
    figure = Figure(figsize=(9.0, 2.3), dpi=120, layout="constrained", facecolor="white")
    panels = figure.subplots(1, 4, width_ratios=[1, 1, 1, 1.15])
    shown = (("end of a stage", coarse), ("repeated: blocks", repeated), ("after the jump: white", whole))
    for axes, (title, x) in zip(panels, shown, strict=False):
        axes.imshow(x[0, 0, 0], cmap="PuOr", vmin=-2, vmax=2)
        axes.set_title(title, fontsize=9, color=INK)
        axes.set_xticks([])
        axes.set_yticks([])
    for (title, x), colour in zip(shown[1:], plots.PALETTE[1:], strict=False):
        power = (torch.fft.rfft(x, dim=-1).abs() ** 2).mean((0, 1, 2, 3)) / 72
        panels[3].plot(np.arange(1, 36), power[1:36], color=colour, label=title.split(":")[0])
    plots.style(panels[3], "", "zonal wavenumber", "power of the noise")
    panels[3].set_ylim(0, None)
    panels[3].legend(frameon=False, fontsize=7.5)
    return figure


def response() -> Figure:
    """What three calibrated energy balances of CESM2 expect of four scenarios, before they are fitted to any run."""
    figure = Figure(figsize=(7.0, 2.9), dpi=120, layout="constrained", facecolor="white")
    axes, known = figure.add_subplot(), calibration_of("CESM2")
    for scenario, colour in zip(("ssp585", "ssp370", "ssp245", "ssp126"), plots.PALETTE[1:], strict=False):
        balances = EnergyBalance(tuple(GlobalMean(layers, offset=0.0) for layers in known.sets))
        means = balances.evaluate(ar6_forcing(scenario, known))
        means = (means - means.sel(year=slice(1850, 1900)).mean("year")).sel(year=slice(2000, 2100))
        for i, line in enumerate(means.transpose(..., "year").values):
            axes.plot(means["year"], line, color=colour, linewidth=0.9, label=scenario if i == 0 else None)
    plots.style(axes, "", "", "global mean above 1850–1900, K")
    axes.legend(frameon=False, fontsize=8)
    return figure


def scores() -> Figure:
    """Fair CRPS over the floor on CESM2 ssp370, from the committed results."""
    rows = json.loads((ROOT / "experiments/results/cesm2-ssp370.json").read_text())["rows"]
    wanted = {"climatology": "climatology", PATTERN_SCALING: "pattern scaling (CO2)", ENERGY_BALANCE: "energy balance"}
    groups: dict[str, dict[str, tuple[float, float | None, float | None]]] = {}
    for row in rows:
        name = wanted.get(row["model"]) or ("SPF" if row["model"].lower().startswith("spf") else None)
        if row["period"] == "headline" and name:
            key = f"{row['variable']}, {row['timescale']}"
            groups.setdefault(key, {})[name] = (row["crps_ratio"], row["crps_ratio_lo"], row["crps_ratio_hi"])
    axes = plots.score_chart(
        groups, title="", xlabel="CRPS over the floor", target=1.0, target_name="a perfect ensemble"
    )
    return axes.figure  # type: ignore[return-value]


FIGURES: dict[str, Callable[[], Figure]] = {
    "pyramid": pyramid, "noise": levels_of_noise, "jump": jumps, "response": response, "scores": scores,
}  # fmt: skip


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in FIGURES.items():
        figure().savefig(folder / f"{name}.png", metadata={"Software": None})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
