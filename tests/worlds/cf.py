"""The CF checker, offline: the standard name table comes with it."""

from functools import cache
from pathlib import Path

import netCDF4

MEDIUM = 2


@cache
def _suite():
    from compliance_checker.runner import CheckSuite

    CheckSuite.load_all_available_checkers()
    return CheckSuite()


def complaints(path: Path) -> list[str]:
    """What the checker of CF 1.11 finds wrong with a NetCDF file."""
    suite, ds = _suite(), netCDF4.Dataset(path)
    try:
        groups, errors = suite.run_all(ds, ["cf:1.11"], [])["cf:1.11"]
    finally:
        ds.close()
    failed = [
        f"{g.name}: {message}" for g in groups if g.weight >= MEDIUM and g.value[0] < g.value[1] for message in g.msgs
    ]
    return [*failed, *map(str, errors)]
