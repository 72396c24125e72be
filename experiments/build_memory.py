"""Peak memory of `climatesuite build` against the number of members and of years.

``python experiments/build_memory.py`` writes ``experiments/results/build_memory.json``. Files of 48 x 72 cells, made from a fixed
seed in a temporary folder; two threads, regridded to 32 x 48. To reach many shards with little data, shards are capped at 2 MB
and blocks at 0.25 MB here, 1/128 of what a build takes: what is measured is what grows. Every measurement has a process of its own,
whose parent imports nothing large, because a child's peak begins at its parent's.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

SIZES = {"1x": (2, 50), "members 4x": (8, 50), "members 16x": (32, 50), "years 4x": (2, 200), "years 16x": (2, 800)}
GRID, TARGET, PART = (48, 72), (32, 48), 128
RESULT = Path(__file__).parent / "results" / "build_memory.json"


def child(folder: Path, members: int, years: int) -> None:
    """Make the files, in another process, build and say the peak in bytes."""
    import resource

    subprocess.run([sys.executable, __file__, "--write", str(folder), str(members), str(years)], check=True)
    from climatesuite.build import build
    from climatesuite.building import units
    from climatesuite.store import layout

    layout.SHARD_BYTES, units.BLOCK_BYTES = layout.SHARD_BYTES // PART, units.BLOCK_BYTES // PART
    idle = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    build(folder, folder / "s.zarr", variables=("tas",), grid=TARGET, workers=2, progress=False)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"peak_MB": round(peak / 1024, 1), "after_imports_MB": round(idle / 1024, 1)}))


def main() -> None:
    """Measure all sizes and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--child", nargs=3)
    parser.add_argument("--write", nargs=3)
    parser.add_argument("--out", type=Path, default=RESULT)
    args = parser.parse_args()
    if args.child:
        child(Path(args.child[0]), int(args.child[1]), int(args.child[2]))
        return
    if args.write:
        sys.path.insert(0, str(Path(__file__).parent))
        import build_throughput

        build_throughput.write_files(Path(args.write[0]), int(args.write[1]), int(args.write[2]), GRID)
        return
    found = {}
    for name, (members, years) in SIZES.items():
        with tempfile.TemporaryDirectory() as folder:
            line = [sys.executable, __file__, "--child", folder, str(members), str(years)]
            done = subprocess.run(line, capture_output=True, text=True, check=True)
        found[name] = {"members": members, "years": years, **json.loads(done.stdout.strip().splitlines()[-1])}
        print(name, found[name], flush=True)
    base = found["1x"]["peak_MB"]
    growth = {name: round(about["peak_MB"] / base, 3) for name, about in found.items()}
    about = {"command": "python experiments/build_memory.py", "cores": os.cpu_count(), "workers": 2}
    args.out.write_text(json.dumps({**about, "sizes": found, "peak_over_1x": growth}, indent=1) + "\n")


if __name__ == "__main__":
    main()
