"""Names of the rows that are no emulator."""

FLOOR = "internal variability floor"
CLIMATOLOGY = "climatology"
FIRST_DECADE = "first decade held"
PATTERN_SCALING = "pattern scaling (CO2)"
AR1 = "pattern scaling (CO2), AR(1)"
ENERGY_BALANCE = "energy balance"
MESMER = "MESMER"
REFERENCES = (CLIMATOLOGY, FIRST_DECADE, PATTERN_SCALING, AR1, ENERGY_BALANCE, MESMER)
"""Weakest first, more or less; the order of tables."""
