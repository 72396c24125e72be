"""Counterfactuals of a scenario: what changes, what stays, and what is said of it."""

import numpy as np
import pytest

import climatesuite
from climatesuite.errors import DataContractError
from climatesuite.forcing.variants import AS_IT_IS, CO2_ONLY, LESS_CO2, MORE_CO2, NO_AEROSOL, variants
from worlds.canonical import write_forcing_file


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("forcings")
    write_forcing_file(folder, "ssp245")
    return climatesuite.scenario("ssp245", folder)


@pytest.fixture(scope="module")
def made(base):
    return variants(base)


def test_each_is_a_scenario_of_its_own_with_its_history(base, made):
    assert list(made) == [AS_IT_IS, CO2_ONLY, NO_AEROSOL, MORE_CO2, LESS_CO2]
    assert len({s.name for s in made.values()}) == 5 and base.name not in {s.name for s in made.values()}
    assert all(
        s.parent is base and s.fields.attrs["experiment_id"] == s.name and len(s.steps) == 1 for s in made.values()
    )


def test_co2_only_repeats_the_first_year_of_all_others(base, made):
    so2, first = made[CO2_ONLY].fields.SO2.values, base.fields.SO2.values[:12]
    np.testing.assert_array_equal(
        so2.reshape(-1, 12, *so2.shape[1:]), np.broadcast_to(first, (so2.shape[0] // 12, *first.shape))
    )
    np.testing.assert_array_equal(made[CO2_ONLY].fields.CO2, base.fields.CO2)


def test_aerosols_off_are_zero_and_nothing_else_changes(base, made):
    assert not made[NO_AEROSOL].fields.SO2.any()
    np.testing.assert_array_equal(made[NO_AEROSOL].fields.CO2, base.fields.CO2)


def test_a_tenth_of_what_is_emitted_from_then_on_is_added_and_the_past_stays(base, made):
    plain = base.fields.CO2.values
    for name, factor in ((MORE_CO2, 1.1), (LESS_CO2, 0.9)):
        co2 = made[name].fields.CO2
        np.testing.assert_allclose(co2 - plain[0], factor * (plain - plain[0]), rtol=1e-12)
        assert co2.attrs["units"] == "Gt" and co2.values[0] == plain[0]
    np.testing.assert_array_equal(made[MORE_CO2].fields.SO2, base.fields.SO2)


def test_co2_alone_has_no_other_forcing_to_hold_and_without_co2_there_is_nothing_to_ask(base):
    from dataclasses import replace

    alone = variants(replace(base, fields=base.fields[["CO2"]].assign_attrs(base.fields.attrs)))
    assert list(alone) == [AS_IT_IS, MORE_CO2, LESS_CO2]
    with pytest.raises(DataContractError, match="no CO2"):
        variants(replace(base, fields=base.fields[["SO2"]]))
