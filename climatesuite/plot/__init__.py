"""Pictures of any ensemble: maps, members side by side, plumes, chances, stripes, animations, sliders.

One rule for all: what is drawn is the departure from the ensemble's mean over its first ten years (half of them where there are
fewer than twenty), in K or mm day-1. ``base=(2015, 2034)`` names other years, ``base="all"`` takes all, ``base=None`` shows the
values themselves. Ensembles are what ``emulator.sample`` and ``climatesuite.ensemble_file.open_ensemble`` give. The axes that
were drawn on come back; they are made with pyplot unless ``ax`` is given. No picture needs the network: the coastline comes
with the package.
"""

from climatesuite.plot.maps import exceedance, map, members
from climatesuite.plot.moving import animate, explore
from climatesuite.plot.series import plume, stripes

__all__ = ["animate", "exceedance", "explore", "map", "members", "plume", "stripes"]
