"""The ``climatesuite`` command: synth, scan, plan, build, forcings, fetch, verify, describe, score, compare, baseline, structure,
report, questions, leaderboard."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from climatesuite import cli
from climatesuite.conventions import TIMESCALES
from climatesuite.errors import sentence


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; 0 is success, 1 a data or file error or a store with problems, 2 wrong usage, 130 an interruption."""
    args = parser().parse_args(argv)
    command: Callable[[argparse.Namespace], int] = args.command
    try:
        return command(args)
    except (ValueError, OSError) as error:  # DataContractError is a ValueError
        print(f"error: {sentence(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def parser() -> argparse.ArgumentParser:
    """All commands and options."""
    top = argparse.ArgumentParser(prog="climatesuite", description="CMIP archives to Zarr; scores for any ensemble.")
    verbs = top.add_subparsers(required=True, metavar="COMMAND")

    def verb(name: str, command: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        added = verbs.add_parser(name, help=text, description=command.__doc__)
        added.set_defaults(command=command)
        return added

    synth = verb("synth", cli.synth, "write a synthetic archive with a known truth")
    synth.add_argument("out", type=cli.local, help="folder to write")
    synth.add_argument(
        "--sources", nargs="+", default=["SYNTHETIC-A"], help="SYNTHETIC-A (noleap), -B (360_day), -C (standard)"
    )
    synth.add_argument("--experiments", nargs="+", default=["ssp126", "ssp370", "ssp585"])
    synth.add_argument("--members", type=int, default=3, help="members of each scenario (default 3)")
    synth.add_argument("--years", type=cli.years, default=(2015, 2099))
    synth.add_argument("--grid", type=cli.grid, default=(24, 36), help="rows x columns (default 24x36)")
    synth.add_argument("--seed", type=int, default=0)

    scan = verb("scan", cli.scan, "list the CMIP files in folders or under URLs")
    scan.add_argument("paths", nargs="+", type=cli.filled, help="folders, files or URLs, e.g. s3://bucket/CMIP6")
    scan.add_argument("--layout", help="take files of a layout of their own too: cesm, or a YAML file")
    scan.add_argument("--out", type=cli.local, help="write an intake-esm datastore (JSON and CSV) here")

    cloud = verb("cloud", cli.cloud, "fetch runs of the public CMIP6 cloud as NetCDF files")
    cloud.add_argument("recipe", type=cli.existing, help="YAML file, e.g. catalogs/cmip6_cloud_runs.yaml")
    cloud.add_argument("out", type=cli.local, nargs="?", help="folder; without it the stores are only listed")
    cloud.add_argument("--index", help="table to look into instead of the one in the recipe")

    plan = verb("plan", cli.plan, "what a recipe would build, and what is missing")
    plan.add_argument("recipe", help="YAML file (a recipe, or an experiment of spf run), or a name, e.g. climatesuite")
    plan.add_argument("--archive", type=cli.existing, help="folder of CMIP files to look into instead")
    plan.add_argument("--index", type=cli.existing, help="table of runs to look into instead, e.g. pangeo-cmip6.csv")

    build = verb("build", cli.build, "CMIP files to a Zarr store")
    build.add_argument("archive", type=cli.filled, help="folder of CMIP files, or a URL")
    build.add_argument(
        "out", type=cli.filled, help="store to make or to add to: a path or a URL such as s3://bucket/name.zarr"
    )
    build.add_argument("--forcings", type=cli.local, help="folder of inputs_<experiment_id>.nc")
    build.add_argument("--forcing-names", nargs="+", default=["CO2", "CH4", "SO2", "BC"])
    build.add_argument("--sources", nargs="+", help="source_ids (default: all)")
    build.add_argument("--experiments", nargs="+", help="scenarios (default: all)")
    build.add_argument("--members", type=cli.members_of, help='JSON, e.g. {"ssp126": ["r1i1p1f1"]} (default: all)')
    build.add_argument("--variables", nargs="+", default=["tas", "pr"])
    build.add_argument("--years", type=cli.years, help="first-last (default: all)")
    build.add_argument(
        "--grid",
        type=cli.grid,
        help="regrid conservatively to rows x columns, curvilinear and unstructured cells too (default: as it is)",
    )
    build.add_argument("--layout", help="take files of a layout of their own too: cesm, or a YAML file")
    build.add_argument("--decade-start", type=int, help="first year of the first decade (default: first year)")
    build.add_argument("--join-parents", action="store_true", help="scenarios begin with the runs that they branch off")
    build.add_argument(
        "--on-overlap",
        choices=("refuse", "first", "last"),
        default="refuse",
        help="which file holds where months differ",
    )
    build.add_argument(
        "--scheduler", default="threads", metavar="WHO",
        help="threads (default), processes, dask (a cluster here), or the address of one, e.g. tcp://host:8786",
    )  # fmt: skip
    build.add_argument("--workers", type=int, help="threads or processes (default: the cores)")

    forcings = verb("forcings", cli.forcings, "a forcing file from files of input4MIPs")
    forcings.add_argument("files", nargs="+", type=cli.existing, help="gridded emissions: SO2_em_anthro and the like")
    forcings.add_argument("--experiment", type=cli.experiment, required=True, help="experiment_id, e.g. ssp370")
    forcings.add_argument("--grid", type=cli.grid, help="rows x columns of the maps (default: as they are)")
    forcings.add_argument("--co2-before", type=float, help="Gt of CO2 emitted from 1850 to the first year")
    forcings.add_argument(
        "--concentrations", nargs="+", type=cli.existing, default=[], help="files of mole fractions of CO2 or CH4"
    )  # fmt: skip
    forcings.add_argument("--aod", type=cli.existing, help="file of stratospheric optical depth")
    forcings.add_argument("--out", type=cli.local, required=True, help="NetCDF file, or a folder")

    fetch = verb("fetch", cli.fetch, "download a public data set, e.g. climatebench")
    fetch.add_argument("name", help="climatebench, cmip6-cloud, or a YAML file like catalogs/climatebench.yaml")
    fetch.add_argument("--out", type=cli.local, help="folder to fill (default: the name)")
    fetch.add_argument(
        "--dry-run", action="store_true", help="say what it is, how big and under which licence, no more"
    )

    verify = verb("verify", cli.verify, "check a store")
    verify.add_argument("store", type=cli.existing_store)
    verify.add_argument("--quick", action="store_true", help="structure only, no data is read")

    describe = verb("describe", cli.describe, "say what a store holds")
    describe.add_argument("store", type=cli.existing_store)

    score = verb("score", cli.score, "score ensemble files against CMIP files")
    _cases(score, "scores.json")
    score.add_argument("--seed", type=int, help="seed to note for predictions whose files state none")

    compare = verb("compare", cli.compare, "several ensembles on the same cases: paired differences, structure")
    _cases(compare, "compare.json")

    report = verb(
        "report", cli.report, "one page about one or many emulators: scores, differences, structure, maps, questions"
    )
    _cases(report, "report.html")
    report.add_argument("--title", help="heading of the page")
    report.add_argument(
        "--without-diagnostics", action="store_true", help="leave the questions out (minutes for months)"
    )

    baseline = verb("baseline", cli.baseline, "draw an ensemble of a baseline")
    baseline.add_argument("name", choices=cli.BASELINE_NAMES)
    baseline.add_argument(
        "--reference", nargs="+", type=cli.existing, required=True, help="CMIP files of training scenarios"
    )
    baseline.add_argument("--scenario", required=True, help="experiment_id to be predicted, e.g. ssp370")
    baseline.add_argument("--timescale", required=True, choices=TIMESCALES)
    baseline.add_argument("--forcings", type=cli.existing, help="folder of inputs_<experiment_id>.nc")
    baseline.add_argument("--patterns", type=cli.existing, help="multi-model warming patterns, for energy-balance")
    baseline.add_argument("--members", type=int, default=20)
    baseline.add_argument("--seed", type=int, default=0)
    baseline.add_argument("--decade-start", type=int)
    baseline.add_argument("--out", type=cli.local, required=True, help="NetCDF file to make")

    structure = verb("structure", cli.structure, "hold the members of an ensemble against real members")
    structure.add_argument("predictions", nargs="+", type=cli.existing, help="years and months of one ensemble")
    structure.add_argument(
        "--real", nargs="+", type=cli.existing, required=True, help="CMIP files of members the emulator has not seen"
    )
    structure.add_argument(
        "--training", nargs="+", type=cli.existing, default=[],
        help="CMIP files it was trained on: more real members, and the memorisation test",
    )  # fmt: skip
    structure.add_argument("--decade-start", type=int)
    structure.add_argument("--out", type=cli.local, default=Path("structure.json"))

    questions = verb(
        "questions", cli.questions, "warming levels, emergence, trends, ratios, rain per kelvin beside the truth"
    )
    questions.add_argument("predictions", nargs="+", type=cli.existing, help="years and months of one ensemble")
    questions.add_argument("--truth", nargs="+", type=cli.existing, required=True, help="CMIP files of the scenario")
    questions.add_argument(
        "--offset", type=float, help="K that 2015-2024 is above pre-industrial (default: observed, 1.24)"
    )
    questions.add_argument(
        "--regions", default="srex", help="srex (default), or a file of polygons, e.g. the AR6 regions"
    )
    questions.add_argument("--parts", nargs="+", choices=cli.PARTS, default=cli.PARTS, help="default: all")
    questions.add_argument("--seed", type=int, default=0, help="of the draws in which own members play the truth")
    questions.add_argument(
        "--pictures", type=cli.local, help="folder for PNGs of intervals, reliability, the graph of errors"
    )
    questions.add_argument("--out", type=cli.local, default=Path("questions.json"))

    board = verb(
        "leaderboard", cli.leaderboard, "ClimateBench: submissions of any tool and baselines beside published rows"
    )
    board.add_argument("submissions", nargs="*", type=cli.existing, help="NetCDF of predicted anomalies, of any tool")
    board.add_argument(
        "--data", type=cli.local, default=Path("climatebench"), help="folder of inputs_*.nc and outputs_*.nc"
    )
    board.add_argument("--scenario", default="ssp245", help="experiment to be predicted (default ssp245)")
    board.add_argument("--window", type=cli.years, default=(2080, 2100), help="years scored (default 2080-2100)")
    board.add_argument("--training", nargs="+", help="experiments for the baselines (default: as published)")
    board.add_argument("--variables", nargs="+", help="default: all of the target")
    board.add_argument(
        "--baselines", nargs="*", choices=cli.BOARD_BASELINES, default=list(cli.BOARD_BASELINES), help="default: all"
    )
    board.add_argument(
        "--out", type=cli.local, default=Path("leaderboard.json"), help="also written as .html beside it"
    )
    return top


def _cases(verb: argparse.ArgumentParser, out: str) -> None:
    """What is scored against what: shared by score and compare."""
    verb.add_argument("predictions", nargs="+", type=cli.existing, help="ensemble NetCDF of any tool")
    verb.add_argument(
        "--truth", nargs="+", type=cli.existing, required=True, help="CMIP files of the scenario, all members"
    )
    verb.add_argument(
        "--reference", nargs="+", type=cli.existing, default=[],
        help="CMIP files of training scenarios (climatology, first decade; with --forcings pattern scaling), or rival ensembles",
    )  # fmt: skip
    verb.add_argument(
        "--forcings", type=cli.existing, help="folder of inputs_<experiment_id>.nc, for pattern scaling on CO2"
    )
    verb.add_argument("--patterns", type=cli.existing, help="multi-model warming patterns, for the energy balance")
    verb.add_argument("--decade-start", type=int)
    verb.add_argument("--bootstrap", type=int, default=1000, help="draws of the block bootstrap (default 1000)")
    verb.add_argument("--out", type=cli.local, default=Path(out))


if __name__ == "__main__":
    sys.exit(main())
