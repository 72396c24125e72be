"""Pictures of ensembles, as ``climatesuite.plot`` draws them."""

from climatesuite.plot import animate, exceedance, explore, map, members, plume, stripes

__all__ = ["animate", "exceedance", "explore", "map", "members", "plume", "stripes"]
