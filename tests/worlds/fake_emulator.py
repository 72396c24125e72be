"""An emulator that draws by arithmetic, and what is compared of the ensembles it writes."""

import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import xarray as xr

from spf.commands.ensemble import write_ensemble
from spf.config import SamplingConfig
from spf.pyramid.spec import PyramidSpec
from worlds.fake_ensemble import fake_ensemble

ROOT = Path(__file__).resolve().parents[2]
FORCINGS = xr.Dataset({"CO2": ("time", np.arange(3.0))}, attrs={"experiment_id": "ssp370"})
HOW, YEARS = SamplingConfig(seed=5), (2015, 2034)
ATTRS = {"institution": "none", "source": "a fake ensemble", "references": "none", "seed": 3, "note": ["a", 1]}
MADE_WHEN = ("history", "sampling_seconds")
FORMATS = ("x.nc", "x.zarr")


class Fake:
    """What a command needs of an emulator; a member is a hash of seed and number, and drawing may hang or be watched."""

    digest, precision, provenance = (
        "d" * 64,
        "32-true",
        {"source_id": "SYNTHETIC-A", "license": "CC0", "training_members": {}},
    )
    codec = SimpleNamespace(variables=("tas", "pr"), beyond_training=lambda forcings: [])
    backbone = SimpleNamespace(spec=PyramidSpec())
    how_members_hang_together = "They do not."
    source = 0

    def __init__(self, grid=(4, 6), finished=None, pause=0.0):
        self.grid, self.finished, self.pause, self.drawn = grid, finished, pause, []

    def template(self, forcings, timescale, years):
        frame = fake_ensemble(timescale, [0], years, self.grid).isel(member=0, drop=True).drop_vars(["tas", "pr"])
        return frame.assign_attrs(source_id="SYNTHETIC-A")

    def windows_per_member(self, forcings, timescale, years, sampling):
        return 1

    def groups(self, forcings, timescale, members, years, sampling):
        return [[m] for m in members]

    def draw(self, forcings, timescale, members, years, seed, sampling, on_step):
        frame = self.template(forcings, timescale, years)
        for done, member in enumerate(members):
            if done == self.finished:
                time.sleep(600)
            time.sleep(self.pause)
            rng = np.random.default_rng([seed, member])
            shape = (frame.sizes["time"], *self.grid)
            fields = {
                v: (
                    ("time", "lat", "lon"),
                    np.float32(mean) * (1 + rng.random(shape, dtype=np.float32) / 10),
                    {"units": u},
                )
                for v, mean, u in (("tas", 275, "K"), ("pr", 3e-5, "kg m-2 s-1"))
            }
            self.drawn.append(member)
            yield member, frame.assign(fields)


def write(out, members=4, fake=None, forcings=FORCINGS, **how):
    return write_ensemble(fake or Fake(), forcings, "year", members, YEARS, HOW, Path(out), progress=False, **how)


def same(a, b):
    """Whether two ensembles are equal, attributes and all, but for when and how fast they were made."""
    a, b = (
        xr.open_dataset(p, decode_times=False, **({"engine": "zarr", "consolidated": False} if p.is_dir() else {}))
        for p in (a, b)
    )
    for ds in (a, b):
        for name in MADE_WHEN:
            assert ds.attrs.pop(name) is not None
    xr.testing.assert_identical(a.load(), b.load())
    return True


def names(folder):
    return sorted(p.name for p in folder.iterdir())
