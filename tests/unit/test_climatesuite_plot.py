"""Pictures of an ensemble: what is drawn is the number that was asked for, and it fits on the figure."""

import logging
import socket
import sys

import cartopy.crs as ccrs
import matplotlib
import numpy as np
import pytest
import xarray as xr
from PIL import Image

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from climatesuite import plot
from climatesuite.errors import DataContractError
from climatesuite.evaluate import diagnostics
from climatesuite.evaluate.exceedance import exceedance
from worlds.fake_ensemble import fake_ensemble


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    plt.close("all")


def drawn(axes) -> np.ndarray:
    """Values of the cells of a map, whatever meridian they begin at: sorted in each row."""
    return np.sort(np.asarray(axes.collections[0].get_array()).reshape(8, -1), axis=1)


def rows(values: np.ndarray) -> np.ndarray:
    return np.sort(values, axis=1)


@pytest.fixture(scope="module")
def years() -> xr.Dataset:
    return fake_ensemble(members=range(5), years=(2015, 2044))


def test_a_map_shows_the_last_ten_years_minus_the_first_ten(years):
    axes = plot.map(years)
    tas = years.tas.astype(float).mean("member")
    expected = tas.sel(time=years.year >= 2035).mean("time") - tas.sel(time=years.year <= 2024).mean("time")
    np.testing.assert_allclose(drawn(axes), rows(expected.values), atol=1e-6)
    assert axes.figure.axes[1].get_xlabel() == "2035–2044 minus 2015–2024, K"
    assert axes.get_title(loc="left") == "tas, ssp370, mean of 5 members"


def test_a_map_of_one_member_and_year_without_a_base_shows_its_rain_in_mm_a_day(years):
    axes = plot.map(years, "pr", years=2030, member=3, base=None)
    expected = years.pr.isel(member=3).sel(time=years.year == 2030)[0].astype(float) * 86400.0
    np.testing.assert_allclose(drawn(axes), rows(expected.values), rtol=1e-6)
    assert axes.figure.axes[1].get_xlabel() == "2030, mm day$^{-1}$" and axes.collections[0].norm.boundaries[0] == 0.0


def test_a_field_of_ones_own_is_drawn_as_it_is(years):
    change = (years.tas.isel(time=-1) - years.tas.isel(time=0)).std("member").rename("spread")
    axes = plot.map(change.assign_attrs(units="K"), title="Spread of the change")
    np.testing.assert_allclose(drawn(axes), rows(change.values))
    with pytest.raises(DataContractError, match="choose a time and a member"):
        plot.map(years.tas)


def test_values_in_kelvin_get_colours_about_them_and_departures_about_zero(years):
    edges = plot.map(years, base=None).collections[0].norm.boundaries
    assert 240.0 < edges[0] < edges[-1] < 315.0
    edges = plot.map(years).collections[0].norm.boundaries
    assert edges[0] == -edges[-1]
    assert plot.map(years, limit=3.0).collections[0].norm.boundaries[-1] == 3.0


def test_members_stand_side_by_side_on_one_scale(years):
    axes = plot.members(years, years=2040, chosen=(0, 4, 2))
    assert [a.get_title(loc="left") for a in axes] == ["member 0", "member 4", "member 2"]
    scales = {tuple(a.collections[0].norm.boundaries) for a in axes}
    assert len(scales) == 1 and len(plot.members(years)) == 4


def test_exceedance_counts_members_and_steps(years):
    shares = exceedance(years, "tas", 1.0, (2040, 2044), (2015, 2024))
    tas = years.tas.astype(float)
    base = tas.sel(time=years.year <= 2024).mean(("member", "time"))
    part = tas.sel(time=years.year >= 2040)
    np.testing.assert_allclose(shares, ((part - base) > 1.0).mean(("member", "time")), atol=1e-12)
    below = exceedance(years, "tas", 1.0, (2040, 2044), (2015, 2024), is_below=True)
    np.testing.assert_allclose(shares + below, 1.0)
    axes = plot.exceedance(years, threshold=1.0, years=(2040, 2044))
    np.testing.assert_allclose(drawn(axes), rows(100 * shares.values))
    assert axes.figure.axes[1].get_xlabel() == "% of years 2040–2044 above 1 K since 2015–2024"


def test_exceedance_of_months_is_about_their_own_calendar_month():
    months = fake_ensemble("month", members=range(3), years=(2015, 2018), warming=0.0, spread=0.0)
    assert exceedance(months, "tas", 0.1, (2017, 2018), (2015, 2016)).max() == 0.0  # the season is no departure
    assert exceedance(months, "tas", 290.0, (2017, 2018)).max() > 0.0
    with pytest.raises(DataContractError, match="choose another period"):
        exceedance(months, "tas", 1.0, (2050, 2060))


def start(line) -> float:
    return float(np.mean(np.asarray(line.get_ydata(), dtype=float)[:10]))


def test_a_plume_beside_a_truth_shows_a_bias_and_without_one_departures(years):
    other = fake_ensemble(members=range(5), years=(2015, 2044), seed=3, bias=1.0)
    axes = plot.plume({"ssp370": years, "warmer": other}, truth=years.isel(member=[0, 1]))
    assert [t.get_text() for t in axes.figure.legends[0].get_texts()] == ["ssp370", "warmer", "truth, 2 members"]
    assert start(axes.lines[1]) - start(axes.lines[0]) == pytest.approx(1.0, abs=0.1)
    assert axes.get_ylabel() == "departure from 2015–2024, K"
    assert start(axes.lines[2]) == pytest.approx(0.0, abs=0.1)
    axes = plot.plume({"ssp370": years, "warmer": other})
    assert [start(line) for line in axes.lines] == pytest.approx([0.0, 0.0], abs=0.1)


def test_an_ensemble_that_begins_later_departs_from_the_level_of_the_first(years):
    late = years.isel(time=years.year >= 2030)
    axes = plot.plume({"all": years, "late": late})
    np.testing.assert_allclose(axes.lines[1].get_ydata(), axes.lines[0].get_ydata()[15:])


def test_a_plume_of_a_region_is_that_of_the_cut_ensemble(years):
    north = years.sel(lat=slice(40, 90))
    axes = plot.plume(north, base=None)
    expected = diagnostics.global_mean(north, "tas").median("member")
    np.testing.assert_allclose(axes.lines[0].get_ydata(), expected)


def test_months_beside_years_are_refused(years):
    with pytest.raises(DataContractError, match="months in 'b' beside longer steps"):
        plot.plume({"a": years, "b": fake_ensemble("month", years=(2015, 2016))})


def test_stripes_have_a_column_a_step_and_a_row_a_member(years):
    axes = plot.stripes(years)
    values = np.asarray(axes.collections[0].get_array()).reshape(5, 30)
    expected = diagnostics.global_mean(years, "tas")
    np.testing.assert_allclose(values, expected - expected.mean(), atol=1e-9)
    assert axes.get_xlim() == (2015.0, 2045.0)


def test_decades_are_named_whole():
    decades = fake_ensemble("decade", members=range(3), years=(2015, 2054))
    assert plot.map(decades).figure.axes[1].get_xlabel() == "2045–2054 minus 2015–2024, K"
    assert plot.stripes(decades).get_xlim() == (2015.0, 2055.0)


def test_an_animation_is_a_gif_of_every_kept_step(years, tmp_path):
    plot.animate(years, to=tmp_path / "a.gif", every=15, member=2)
    with Image.open(tmp_path / "a.gif") as gif:
        assert gif.n_frames == 2


@pytest.mark.parametrize("timescale", ["year", "month"])
def test_sliders_show_the_map_of_their_step_and_member(timescale, monkeypatch):
    pytest.importorskip("ipywidgets", reason="extra notebook is not installed")
    shown: list = []
    monkeypatch.setattr("IPython.display.display", lambda *figures, **_: shown.extend(figures))
    ds = fake_ensemble(timescale, members=range(2), years=(2015, 2024))
    widget = plot.explore(ds)
    step, member = widget.children[:2]
    assert [label for label, _ in step.options[:2]] == (
        ["2015", "2016"] if timescale == "year" else ["2015-01", "2015-02"]
    )
    step.value, member.value = 3, 1
    widget.update()
    axes = shown[-1].axes[0]
    assert not plt.get_fignums()  # shown once, not again at the end of the cell
    assert "member 1" in axes.get_title(loc="left")
    same = (ds.year <= 2019) & ((ds.month == 4) if timescale == "month" else True)  # of ten years the first half
    expected = ds.tas.isel(member=1, time=3) - ds.tas.isel(time=same).astype(float).mean(("member", "time"))
    np.testing.assert_allclose(drawn(axes), rows(expected.values), atol=1e-4)


def test_without_widgets_the_last_map_is_drawn_and_the_remedy_named(years, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    with caplog.at_level(logging.WARNING, "climatesuite"):
        axes = plot.explore(years)
    assert "pip install ipywidgets" in caplog.text
    assert axes.get_title(loc="left") == "tas, ssp370, member 0, 2044"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"years": 2100}, "no year labelled 2100 to 2100; expected years from 2015 to 2044"),
        ({"member": 9}, "no member 9; expected one of 0, 1, 2, 3, 4"),
        ({"name": "huss"}, "no such variable; expected tas, pr"),
    ],
)
def test_what_the_ensemble_does_not_have_is_named(years, options, message):
    with pytest.raises(DataContractError, match=message):
        plot.map(years, **options)


def test_a_map_needs_a_projection_and_takes_any(years):
    with pytest.raises(DataContractError, match="subplot_kw"):
        plot.map(years, ax=plt.figure().add_subplot())
    globe = plt.figure().add_subplot(projection=ccrs.Orthographic(0, 50))
    assert plot.map(years, ax=globe) is globe
    globe.figure.canvas.draw()


def test_every_title_and_label_lies_on_the_figure_and_nothing_reaches_for_the_network(years, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a figure reached for the network")

    for name in ("socket", "create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, refuse)
    pictures = [
        plot.map(years), plot.map(years, base=None), plot.exceedance(years, "pr", -0.1), plot.plume(years),
        plot.stripes(years), plot.members(years)[0], plot.members(years, "pr", chosen=(0, 1, 2), columns=3)[0],
    ]  # fmt: skip
    for axes in pictures:
        axes.figure.canvas.draw()
        size = axes.figure.bbox
        for part in axes.figure.axes:
            for text in (part._left_title, part.xaxis.label, part.yaxis.label):
                if text.get_text():
                    box = text.get_window_extent()
                    assert size.x0 <= box.x0 and box.x1 <= size.x1, text
                    assert size.y0 <= box.y0 and box.y1 <= size.y1, text


def test_importing_plots_chooses_no_backend():
    import subprocess

    code = "import sys, climatesuite.plot; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_spf_hands_the_plots_on_without_an_import_of_their_own():
    import spf

    assert spf.plot.map is plot.map
    with pytest.raises(AttributeError, match="has no attribute 'plots'"):
        spf.plots  # noqa: B018
