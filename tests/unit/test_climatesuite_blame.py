"""Where an error begins: an error made at a node is found at that node, and what it causes is said to follow."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from climatesuite.errors import DataContractError
from climatesuite.evaluate import blame, masks
from climatesuite.evaluate.blame import FAILS, FOLLOWS, PASSES, ancestors, attribute, blame_rows, graph_of
from climatesuite.evaluate.questions import ask
from climatesuite.harmonise.coarsen import to_year
from worlds.fake_ensemble import fake_ensemble

YEARS = (2015, 2054)
GRID = (12, 12)
GRAPH = graph_of(["tas", "pr"], True)


def world(seed: int, size: int, **changes) -> xr.Dataset:
    return fake_ensemble("month", range(size), YEARS, GRID, seed=seed, **changes)


@pytest.fixture(scope="module")
def truth() -> xr.Dataset:
    return world(1, 3)


@pytest.fixture(scope="module")
def perfect() -> xr.Dataset:
    return world(2, 6)


def with_error(ds: xr.Dataset, name: str, error: xr.DataArray) -> xr.Dataset:
    """The ensemble with an error added to one variable, score units, broadcast over all members."""
    factor = 86400.0 if name == "pr" else 1.0
    moved = (ds[name] + error.drop_vars([c for c in error.coords if c not in error.dims]) / factor).transpose(
        *ds[name].dims
    )
    return ds.assign({name: moved.astype("float32").assign_attrs(ds[name].attrs)})


def elapsed(ds: xr.Dataset) -> xr.DataArray:
    return (ds.year + (ds.month - 0.5) / 12.0 - YEARS[0]).drop_vars(["year", "month"], errors="ignore")


def pattern(ds: xr.Dataset, region: str) -> xr.DataArray:
    """A region's indicator minus its area mean, so that the globe's mean is left alone."""
    weights = xr.concat([masks.large_regions(ds), masks.latitude_bands(ds)], "region")
    inside = (weights.sel(region=region) > 0).astype(float)
    return inside - float((inside * weights.sel(region=masks.GLOBE)).sum())


def status(ensemble: xr.Dataset, truth: xr.Dataset) -> dict[str, str]:
    return {r["name"]: r["status"] for r in blame_rows(ask(ensemble, truth))}


def begins(ensemble: xr.Dataset, truth: xr.Dataset) -> list[str]:
    return [node for node, word in status(ensemble, truth).items() if word == FAILS]


# -------------------------------------------------------------------------------------------------------------- graph


def test_the_graph_is_the_chain_of_each_variable_and_the_ratios_that_join_them():
    assert ancestors(GRAPH, "tas trend") == {"tas field", "tas area mean", "tas seasonal cycle"}
    assert ancestors(GRAPH, blame.RATIOS) == ancestors(GRAPH, "tas trend") | {"tas trend"}
    assert {"pr field", "tas field", "pr trend"} <= ancestors(GRAPH, blame.RAIN)
    assert list(graph_of(["pr"], False)) == ["pr field", "pr area mean", "pr trend"]


@given(st.sets(st.sampled_from(sorted(GRAPH))))
def test_every_failure_begins_somewhere_and_only_where_nothing_before_it_fails(failing):
    found = attribute(GRAPH, failing)
    assert list(found) == list(GRAPH)
    assert {n for n, (word, _) in found.items() if word != PASSES} == failing
    for node, (word, causes) in found.items():
        before = ancestors(GRAPH, node) & failing
        assert (word == FAILS) == (node in failing and not before)
        assert bool(causes) == (word == FOLLOWS)
        assert all(found[c][0] == FAILS and c in before for c in causes)


def test_two_causes_are_both_named():
    found = attribute(GRAPH, {"tas trend", "pr trend", blame.RAIN})
    assert found[blame.RAIN] == (FOLLOWS, ("tas trend", "pr trend"))


# ---------------------------------------------------------------------------------------------------- injected errors


def test_a_perfect_ensemble_passes_everywhere(perfect, truth):
    assert set(status(perfect, truth).values()) == {PASSES}


@pytest.mark.parametrize(
    ("node", "name", "error"),
    [
        ("tas field", "tas", lambda ds: 1.5 * pattern(ds, "30N-60N")),
        ("pr field", "pr", lambda ds: 0.3 * pattern(ds, masks.LAND)),
        ("tas area mean", "tas", lambda ds: xr.DataArray(0.7)),
        ("pr area mean", "pr", lambda ds: xr.DataArray(0.15)),
        ("tas seasonal cycle", "tas", lambda ds: 0.8 * np.cos(2 * np.pi * (ds.month - 1) / 12)),
        ("pr seasonal cycle", "pr", lambda ds: 0.1 * np.sin(2 * np.pi * (ds.month - 1) / 12)),
        ("tas trend", "tas", lambda ds: 0.02 * elapsed(ds)),
        ("pr trend", "pr", lambda ds: 0.004 * elapsed(ds)),
        (blame.RATIOS, "tas", lambda ds: 0.02 * elapsed(ds) * pattern(ds, masks.ARCTIC)),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_an_error_made_at_a_node_is_found_there_and_nowhere_else(perfect, truth, node, name, error):
    assert begins(with_error(perfect, name, error(perfect)), truth) == [node]


def test_noise_too_strong_in_cells_is_the_fields(perfect, truth):
    noise = 0.7 * np.random.default_rng(0).standard_normal(perfect.tas.shape)
    assert begins(with_error(perfect, "tas", xr.DataArray(noise, dims=perfect.tas.dims)), truth) == ["tas field"]


def test_rain_below_zero_is_the_fields(perfect, truth):
    dry = perfect.pr.values.copy()
    dry[:, ::200] = -1e-7
    assert "pr field" in begins(perfect.assign(pr=perfect.pr.copy(data=dry)), truth)


def test_rain_that_does_not_go_with_its_warming_fails_where_the_two_meet():
    """Members differ so much in their warming that neither trend can be told from the truth's; their ratio can."""
    rates = (0.04, 0.1, 0.06, 0.09, 0.05)

    def members(seed: int, per_kelvin: float) -> xr.Dataset:
        parts = []
        for i, rate in enumerate(rates):
            tas, pr = (
                fake_ensemble("month", [i], YEARS, GRID, seed=seed + i, warming=w, spread=0.3)
                for w in (rate, rate * per_kelvin)
            )
            parts.append(tas.assign(pr=pr.pr))
        return xr.concat(parts, "member", data_vars="minimal", coords="minimal", compat="override")

    found = status(members(10, 1.4), members(20, 1.0))
    assert found["tas trend"] == found["pr trend"] == PASSES
    assert found[blame.RAIN] == FAILS


def test_what_follows_from_a_cause_is_said_to_follow():
    calm = world(2, 6, spread=0.3)
    rows = blame_rows(ask(with_error(calm, "tas", 0.04 * elapsed(calm)), world(1, 3, spread=0.3)))
    by_node = {r["name"]: r for r in rows}
    assert by_node[blame.RAIN]["status"] == FOLLOWS and by_node[blame.RAIN]["cause"] == ["tas trend"]
    assert (
        by_node["tas trend"]["value"] == pytest.approx(0.8, abs=0.02) and by_node["tas trend"]["units"] == "K decade-1"
    )
    assert by_node["tas trend"]["reference_hi"] < 0.8 and by_node["tas trend"]["note"] == "the failure begins here"


def test_years_have_no_season_to_fail(perfect, truth):
    found = status(with_error(to_year(perfect), "tas", xr.DataArray(0.7)), to_year(truth))
    assert "tas seasonal cycle" not in found and found["tas area mean"] == FAILS


def test_one_member_on_each_side_is_refused(perfect, truth):
    with pytest.raises(DataContractError, match="one member on each side"):
        blame_rows(ask(perfect.isel(member=[0]), truth.isel(member=[0])))
