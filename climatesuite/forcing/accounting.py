"""How emissions are counted: part of a forcing's identity, as two inventories of one scenario differ by more than scenarios do.

Of ssp370 in 2050, the forcing files hold 60 Gt of CO2, the SSP table 63 Gt, which are not two opinions: one counts fossil fuels and
industry, the other land use as well. Of BC in ssp126 in 2099 one holds half of the other. So numbers of one accounting never stand
beside numbers of another; what a table says is taken as its difference from (or ratio to) the same scenario in the same table.

Measured on all pairs of ssp126, ssp245, ssp370 and ssp585: one made from another's forcing file by the table's *difference* errs by
at most 1.7 Mt of SO2, 0.6 Mt of BC, 17 Mt of CH4 a year and 6.4 Gt of CO2; by *ratio* 13, 3.2, 33 and, as CO2 passes through
zero, anything. Hence difference is the rule.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import xarray as xr

from climatesuite.errors import DataContractError

NOT_STATED, BASE_YEAR = "not stated", 1850


@dataclass(frozen=True)
class Accounting:
    """What a set of emission numbers counts.

    Attributes:
        name: Short name, the attribute ``accounting`` of a forcing.
        co2: What its CO2 includes.
        base_year: Year from which CO2 is summed up.
        sectors: What SO2, BC and CH4 include.
    """

    name: str
    co2: str
    base_year: int
    sectors: str


ACCOUNTINGS = {
    a.name: a
    for a in (
        Accounting("input4mips", "fossil fuels and industry", BASE_YEAR, "anthropogenic sectors, gridded SO2 and BC"),
        Accounting(
            "rcmip", "fossil fuels, industry and land use", BASE_YEAR, "anthropogenic sectors and open burning, global"
        ),
    )
}
"""ClimateBench's inputs and everything made from input4MIPs; the table of RCMIP 5.1.0."""


def known(name: str) -> Accounting:
    """The accounting of that name.

    Raises:
        DataContractError: If there is none.
    """
    if name not in ACCOUNTINGS:
        choices = "; ".join(f"{a.name} (CO2 of {a.co2})" for a in ACCOUNTINGS.values())
        raise DataContractError("accounting", repr(name), choices, "say which of them your numbers follow")
    return ACCOUNTINGS[name]


def accounting_of(ds: xr.Dataset) -> str:
    """What forcings follow: the attribute ``accounting``, theirs or that of their variables; else input4mips where ``source`` says
    so; else "not stated". Another ``base_year`` than 1850 is a part of it."""
    beside = [str(v.attrs["accounting"]) for v in ds.data_vars.values() if v.attrs.get("accounting")]
    named = str(ds.attrs.get("accounting", "")) or next(iter(beside), "")
    if not named and "input4mips" in str(ds.attrs.get("source", "")).lower():
        named = "input4mips"
    since = str(ds.attrs.get("base_year", BASE_YEAR))
    is_other = named and named != NOT_STATED and since != str(BASE_YEAR) and "since" not in named
    return f"{named}, since {since}" if is_other else named or NOT_STATED


def check_like(forcings: xr.Dataset, accounting: str, trained: str) -> None:
    """Refuse forcings that count otherwise than what something was trained with; what is not stated passes.

    Raises:
        DataContractError: If both are stated and differ.
    """
    own = accounting_of(forcings)
    if NOT_STATED not in (own, accounting) and own != accounting:
        raise DataContractError(
            f"forcings of {forcings.attrs.get('experiment_id', 'the scenario')}", f"emissions counted as {own}",
            f"{accounting}, as {trained} was trained with",
            "apply them as a difference to a named scenario: climatesuite.scenario(...).with_table(...)",
        )  # fmt: skip


def check_same(forcings: Iterable[xr.Dataset], subject: str) -> str:
    """The one accounting of some forcings; those that state none pass, as nothing is known of them.

    Raises:
        DataContractError: If two are mixed.
    """
    by_name: dict[str, str] = {}
    for ds in forcings:
        by_name.setdefault(accounting_of(ds), str(ds.attrs.get("experiment_id", "an unnamed scenario")))
    by_name.pop(NOT_STATED, None)
    if len(by_name) > 1:
        found = " and ".join(f"{scenario} ({name})" for name, scenario in sorted(by_name.items()))
        raise DataContractError(
            subject, f"two ways of counting emissions: {found}", "one accounting for all scenarios",
            "apply the other as a difference to a named scenario: climatesuite.scenario(...).with_table(...)",
        )  # fmt: skip
    return next(iter(by_name), NOT_STATED)
