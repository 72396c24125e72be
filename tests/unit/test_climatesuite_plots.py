"""Figures: drawn without network, pyplot or global settings; what is on them is what was given."""

import socket
import subprocess
import sys

import cartopy.crs as ccrs
import matplotlib
import numpy as np
import pytest
import xarray as xr

from climatesuite.evaluate import diagnostics, map_geometry, plots
from worlds.fake_ensemble import fake_ensemble


def field(grid: tuple[int, int] = (8, 12)) -> xr.DataArray:
    return diagnostics.spread_map(fake_ensemble(grid=grid), "tas")


def draw(f: xr.DataArray, **options):
    return plots.draw_map(f, "Spread", cmap="YlGnBu", limits=(0.0, 1.0), label="K", **options)


def test_map_is_drawn_with_every_socket_blocked(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a figure reached for the network")

    for name in ("socket", "create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, refuse)
    f = field()
    image = plots.png(draw(f, stipple=f > f.mean()))
    assert image.startswith(b"\x89PNG") and len(image) > 10_000


def test_second_map_is_the_same_as_the_first():
    assert plots.png(draw(field())) == plots.png(draw(field()))


def test_drawing_changes_no_global_setting_and_imports_no_pyplot():
    before = dict(matplotlib.rcParams)
    plots.png(draw(field()))
    assert dict(matplotlib.rcParams) == before
    code = "import sys, climatesuite.evaluate.plots; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_coastline_lies_on_the_globe():
    xy = map_geometry.coastline()
    assert xy.shape[1] == 2 and np.nanmax(abs(xy[:, 0])) <= 180.0 and np.nanmax(abs(xy[:, 1])) <= 90.0
    line = draw(field()).lines[0]
    assert np.isnan(xy[:, 0]).sum() <= np.isnan(line.get_xdata()).sum() < np.isnan(xy[:, 0]).sum() + 5


@pytest.mark.parametrize("projection", [ccrs.Robinson(), ccrs.Robinson(150), ccrs.Orthographic(0, 50)], ids=repr)
def test_coastline_never_leaps_across_a_map(projection):
    x = map_geometry.projected_coastline(projection)[:, 0]
    width = projection.x_limits[1] - projection.x_limits[0]
    assert np.nanmax(abs(np.diff(x))) < 0.1 * width and np.isfinite(x).mean() > 0.4


@pytest.mark.parametrize("first", [0.0, 2.5, -30.0])
def test_every_cell_is_drawn_once_from_the_date_line_eastwards(first):
    lon = (first + 15.0 + 30.0 * np.arange(12)) % 360.0
    lon.sort()
    f = xr.DataArray(np.tile(lon, (8, 1)), {"lat": np.linspace(-78.75, 78.75, 8), "lon": lon}, ("lat", "lon"))
    edges, lat, values = map_geometry.cells_from_dateline(f)
    assert edges[0] == -180.0 and edges[-1] == 180.0 and (np.diff(edges) > 0).all()
    assert values.shape == (8, edges.size - 1) and lat.size == 9
    middles = (edges[1:] + edges[:-1]) / 2
    assert (abs((values[0] - middles + 180.0) % 360.0 - 180.0) <= 15.0).all()
    width = np.array([np.diff(edges)[values[0] == at].sum() for at in lon])
    np.testing.assert_allclose(width, 30.0)


def test_colour_limits_are_round_and_shared():
    a, b = (xr.DataArray(np.full((2, 2), v)) for v in (0.37, -1.13))
    assert plots.nice_limit(a) == pytest.approx(0.4) and plots.nice_limit(a, b) == pytest.approx(1.2)
    assert plots.nice_limit(a * 0) == 1.0 and plots.nice_limit(a * np.nan) == 1.0
    assert plots.nice_limit(a * 1000) == pytest.approx(400.0)


def test_plume_shows_bands_median_and_every_truth_member():
    ensemble, truth = fake_ensemble(members=range(8)), fake_ensemble(members=("r1i1p1f1", "r2i1p1f1"), seed=1)
    quantiles = diagnostics.plume(diagnostics.global_mean(ensemble, "tas"))
    axes = plots.plume(quantiles, diagnostics.global_mean(truth, "tas"), title="t", ylabel="K", size=8)
    assert len(axes.collections) == 2 and len(axes.lines) == 3
    labels = [text.get_text() for text in axes.figure.legends[0].get_texts()]
    assert labels == ["5–95 % of 8 members", "25–75 % of 8 members", "median", "truth, 2 members"]
    assert list(np.asarray(axes.lines[0].get_xdata())[:2]) == [2015.5, 2016.5]


@pytest.mark.parametrize(
    ("timescale", "expected"), [("decade", [2020.0, 2030.0]), ("month", [2015 + 0.5 / 12, 2015 + 1.5 / 12])]
)
def test_periods_are_drawn_at_their_middle(timescale, expected):
    series = diagnostics.global_mean(fake_ensemble(timescale, years=(2015, 2034)), "tas")
    np.testing.assert_allclose(plots._when(series)[:2], expected)


def test_spectrum_draws_truth_emulator_and_a_ratio_for_each_band():
    ds = fake_ensemble()
    spectrum = diagnostics.zonal_spectrum(ds, "pr")
    whole = diagnostics.band_mean(spectrum)
    ratios = {
        k: diagnostics.band_mean(spectrum, b) / diagnostics.band_mean(spectrum, b) for k, b in diagnostics.BANDS.items()
    }
    axes = plots.spectrum(whole, whole, ratios, title="t", units="mm day-1")
    assert [len(a.lines) for a in axes.figure.axes] == [2, 4]
    assert np.asarray(axes.lines[0].get_xdata()).tolist() == [1, 2, 3, 4, 5]
    assert plots.png(axes) and len(plots.spectrum(whole, None, {}, title="t", units="K").figure.axes) == 1


def test_rank_histogram_has_one_bar_a_rank():
    axes = plots.rank_histogram(xr.DataArray(np.full(5, 0.2), dims="rank"), title="t", note="flat")
    assert len(axes.patches) == 5 and np.asarray(axes.lines[0].get_ydata())[0] == 0.2
    assert axes.get_ylim()[1] >= 0.4


def test_score_chart_places_values_and_intervals():
    values: dict[str, dict[str, tuple[float, float | None, float | None]]] = {
        "tas, year": {"a": (1.2, 1.1, 1.3), "b": (2.0, None, None)},
        "pr, year": {"a": (1.0, None, None)},
    }
    axes = plots.score_chart(values, title="t", xlabel="x", target=1.0, target_name="floor")
    assert [t.get_text() for t in axes.get_yticklabels()] == ["tas, year", "pr, year"]
    assert [t.get_text() for t in axes.figure.legends[0].get_texts()] == ["a", "b", "floor"]
    assert any(np.asarray(line.get_xdata()).tolist() == [1.1, 1.3] for line in axes.lines)
    assert plots.png(axes)


def test_units_are_set_with_raised_exponents():
    assert plots.unit_text("mm day-1") == "mm day$^{-1}$" and plots.unit_text("K") == "K"
