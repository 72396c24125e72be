"""ClimateSuite: CMIP-style archives in, analysis-ready Zarr, forced responses and scores out."""

__version__ = "0.1.0"
