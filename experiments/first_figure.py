"""One figure of the emulator that comes with the package, without any data: ``python experiments/first_figure.py OUT.png``.

Warming between the first and the last decade of ssp370, mean of eight members.
"""

import sys
from pathlib import Path

import matplotlib

from spf import shipped

NAME, SCENARIO, MEMBERS = "cesm2", "ssp370", 8


def main(out: Path) -> None:
    """Draw it; where the emulator is not in this installation, say so."""
    if NAME not in shipped.names():
        print(f"no emulator {NAME} in this installation, hence no {out.name}")
        return
    matplotlib.use("Agg")
    import spf
    from spf import plot

    decades = spf.load(NAME).sample(SCENARIO, timescale="decade", members=MEMBERS, seed=0)
    plot.map(decades, "tas").figure.savefig(out, dpi=120, bbox_inches="tight")
    print(out)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
