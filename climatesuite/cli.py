"""What the verbs of the ``climatesuite`` command do; every function returns an exit code."""

import argparse
import json
import shlex
import sys
from pathlib import Path

PARTS = ("answers", "regions", "blame")
"""What ``climatesuite questions`` can print."""
BASELINE_NAMES = ("climatology", "first-decade", "pattern-scaling", "ar1", "energy-balance", "mesmer")
"""Keys of ``baselines.fit.BASELINES``; a test holds the two together, so that the command starts without importing them."""

BOARD_BASELINES = ("pattern-scaling", "gaussian-process", "random-forest")
"""Keys of ``evaluate.leaderboard.BASELINES``, for the same reason."""


def synth(args: argparse.Namespace) -> int:
    """Write a small archive of CMIP-style NetCDF from an analytical Earth system whose truth is known."""
    from climatesuite.archive.synthetic import write_archive

    files = write_archive(
        args.out, sources=args.sources, experiments=args.experiments, members=args.members, years=args.years,
        grid=args.grid, seed=args.seed, progress=sys.stderr.isatty(),
    )  # fmt: skip
    print(f"{len(files)} files under {args.out}")
    return 0


def scan(args: argparse.Namespace) -> int:
    """List what CMIP files are there: source, scenario, members, variables, years; and what was set aside, with the reason."""
    from climatesuite.archive.catalog import write_catalog
    from climatesuite.archive.choose import incomplete
    from climatesuite.archive.layouts import read_layout
    from climatesuite.archive.lineage import parents
    from climatesuite.archive.scan import scan as scan_paths

    found = scan_paths(args.paths, read_layout(args.layout) if args.layout else None)
    print(found.table())
    for line in (*parents(found), *incomplete(found)):
        print(line)
    notes = [f"note: {e.path}: {text}" for e in found.entries for text in e.notes]
    aside = [
        f"{what}: {r.path}: {r.reason}"
        for what, rs in (("replaced", found.replaced), ("set aside", found.rejected))
        for r in rs
    ]
    for line in dict.fromkeys([*notes, *aside]):
        print(line, file=sys.stderr)
    if args.out is not None:
        print(write_catalog(found, args.out))
    return 0 if found.entries else 1


def plan(args: argparse.Namespace) -> int:
    """Say what a recipe would build, from what, how big, and what is missing; nothing is written. 1 if something is missing."""
    from climatesuite.plan import plan as make_plan

    made = make_plan(args.recipe, args.archive, args.index)
    print(made)
    return 0 if made.is_complete else 1


def cloud(args: argparse.Namespace) -> int:
    """List the stores that a recipe means, and fetch them as files; what is there already stays."""
    from climatesuite.archive.cloud import cloud_stores, fetch_stores, index_rows, read_recipe

    recipe = read_recipe(args.recipe)
    rows = cloud_stores(recipe, index_rows(args.index or recipe["index"]))
    for row in rows:
        facets = [row[f] for f in ("source_id", "experiment_id", "member_id", "variable_id", "grid_label")]
        print(*facets, row.get("version", ""), row["zstore"])
    for row in rows if args.out is not None else ():
        print(*fetch_stores([row], args.out))
    return 0


def build(args: argparse.Namespace) -> int:
    """Build a Zarr store from CMIP files and forcing files; a second run with the same input does nothing."""
    from climatesuite.build import build as build_store
    from climatesuite.building.workers import terminated_as_interrupted

    with terminated_as_interrupted():
        report = build_store(
            args.archive, args.out, sources=args.sources, experiments=args.experiments, members=args.members,
            variables=args.variables, forcings=args.forcings, forcing_names=args.forcing_names, years=args.years,
            grid=args.grid, decade_start=args.decade_start, join_parents=args.join_parents, on_overlap=args.on_overlap,
            layout=args.layout, scheduler=args.scheduler, workers=args.workers, progress=True,
        )  # fmt: skip
    print(report)
    return 0


def forcings(args: argparse.Namespace) -> int:
    """Make a forcing file from files of input4MIPs: sectors summed, regridded with totals kept, CO2 cumulated."""
    from climatesuite.forcing.atmosphere import read_aod, read_concentrations
    from climatesuite.forcing.input4mips import forcings_of, read_emissions
    from climatesuite.forcing.layout import write_forcings
    from climatesuite.forcing.totals import yearly_totals
    from climatesuite.harmonise.grids import target_grid

    emissions = read_emissions(args.files, target_grid(args.grid) if args.grid else None)
    ds = forcings_of(emissions, args.experiment, args.co2_before)
    for file in args.concentrations:
        ds = ds.assign(read_concentrations(file, ds))
    if args.aod is not None:
        ds = ds.assign(AOD=read_aod(args.aod, ds))
    print(yearly_totals(ds).iloc[[0, -1]].to_string(float_format="{:.4g}".format))
    print(write_forcings(ds, args.out, {"source": ds.attrs["sources"]}, " ".join(p.name for p in args.files)))
    return 0


def fetch(args: argparse.Namespace) -> int:
    """Download a public data set: says what it is, its size and licence first; checked, resumable, laid out as it is read."""
    from climatesuite.archive.download import fetch as fetch_product
    from climatesuite.archive.download import missing, read_product

    product = read_product(args.name)
    print(product)
    if args.dry_run:
        return 0
    out = args.out or Path(product.name)
    for file in fetch_product(product, out, progress=sys.stderr.isatty()):
        print(file)
    absent = missing(product, out)
    if absent:
        print(f"not among them, though expected: {', '.join(absent)}", file=sys.stderr)
    return 0


def verify(args: argparse.Namespace) -> int:
    """Check a store: every chunk, checksums, years and decades against their months, statistics."""
    from climatesuite.store.verify import verify as verify_store

    problems = verify_store(args.store, deep=not args.quick)
    for problem in problems:
        print(problem)
    print(f"{args.store}: {len(problems)} problems" if problems else f"{args.store}: sound")
    return 1 if problems else 0


def describe(args: argparse.Namespace) -> int:
    """Say what a store holds: sources, scenarios, members, years, grid, size, licences."""
    from climatesuite.store.describe import describe as describe_store

    print(describe_store(args.store))
    return 0


def score(args: argparse.Namespace) -> int:
    """Score anybody's ensemble files against CMIP files, beside the floor and the references that are given."""
    from climatesuite.evaluate.report import write_scores
    from climatesuite.evaluate.score_files import score as score_files
    from climatesuite.evaluate.text_tables import score_table

    _say_what_is_absent(args)
    rows = score_files(
        args.predictions, args.truth, args.reference, args.forcings, patterns=args.patterns, decade_start=args.decade_start,
        seed=args.seed, bootstrap=args.bootstrap,
    )  # fmt: skip
    write_scores(args.out, rows)
    print(score_table(rows))
    print(args.out)
    return 0


def compare(args: argparse.Namespace) -> int:
    """Compare ensemble files on the steps they share: scores, paired differences with intervals, structure of members."""
    from climatesuite.evaluate.report import write_json
    from climatesuite.evaluate.score_files import compare_files
    from climatesuite.evaluate.text_tables import difference_table, score_table, structures_table

    _say_what_is_absent(args)
    found = compare_files(
        args.predictions, args.truth, args.reference, args.forcings, patterns=args.patterns, decade_start=args.decade_start,
        bootstrap=args.bootstrap,
    )  # fmt: skip
    write_json(args.out, found.as_json())
    tables = [score_table(found.rows), difference_table(found.differences)]
    for part in [*tables, *([structures_table(found.structure)] if found.structure else [])]:
        print(part, end="\n\n")
    print(args.out)
    return 0


def report(args: argparse.Namespace) -> int:
    """Write one HTML page about ensemble files of one or many emulators, the same numbers as JSON and CSV beside it."""
    from climatesuite.evaluate.report_files import report_files

    _say_what_is_absent(args)
    page = report_files(
        args.predictions, args.truth, args.reference, args.forcings, args.out, patterns=args.patterns,
        decade_start=args.decade_start, bootstrap=args.bootstrap, diagnostics=not args.without_diagnostics, title=args.title,
        command=shlex.join(["climatesuite", *sys.argv[1:]]), progress=sys.stderr.isatty(),
    )  # fmt: skip
    for path in sorted(page.parent.glob(f"{page.stem}[._]*")):
        print(path)
    return 0


def _say_what_is_absent(args: argparse.Namespace) -> None:
    if args.reference and args.forcings is None:
        print(
            "no pattern scaling and no skill: give --forcings, the folder of inputs_<experiment_id>.nc", file=sys.stderr
        )


def baseline(args: argparse.Namespace) -> int:
    """Draw an ensemble of a baseline for a scenario it was not fitted on, and write it as CF NetCDF."""
    from climatesuite.evaluate.score_files import write_baseline

    print(write_baseline(
        args.name, args.reference, args.scenario, args.timescale, args.out, args.forcings, patterns=args.patterns,
        decade_start=args.decade_start, members=args.members, seed=args.seed,
    ))  # fmt: skip
    return 0


def structure(args: argparse.Namespace) -> int:
    """Hold an ensemble's members against real members: persistence, seams, spectra, Niño-3.4, copies of training fields."""
    from climatesuite.archive.read import open_runs
    from climatesuite.evaluate.memorisation import member_rows
    from climatesuite.evaluate.protocol import timescale_of
    from climatesuite.evaluate.report import write_scores
    from climatesuite.evaluate.text_tables import structure_table
    from climatesuite.export import open_ensemble

    ensembles = {timescale_of(ds, str(path)): ds for path, ds in ((p, open_ensemble(p)) for p in args.predictions)}
    training = open_runs(args.training).values() if args.training else ()
    rows = member_rows(ensembles, training, open_runs(args.real).values(), decade_start=args.decade_start)
    write_scores(args.out, rows)
    print(structure_table(rows))
    print(args.out)
    return 0


def leaderboard(args: argparse.Namespace) -> int:
    """Score submissions and the published baselines as ClimateBench does; its published rows stand beside, marked as such."""
    from climatesuite.evaluate.leaderboard import as_html, as_text
    from climatesuite.evaluate.leaderboard import leaderboard as make
    from climatesuite.evaluate.report import write_json, write_text

    board = make(
        args.data, args.submissions, scenario=args.scenario, window=args.window, baselines=args.baselines,
        training=args.training, variables=args.variables,
    )  # fmt: skip
    print(as_text(board))
    print(write_json(args.out, board.as_json()))
    print(write_text(args.out.with_suffix(".html"), as_html(board)))
    return 0


def questions(args: argparse.Namespace) -> int:
    """What a climate scientist asks first (warming levels to rain per kelvin), calibration by region, and where errors begin."""
    from climatesuite.errors import DataContractError
    from climatesuite.evaluate.answers import answer_table, disagreeing
    from climatesuite.evaluate.blame import blame_rows
    from climatesuite.evaluate.by_region import region_rows, summary
    from climatesuite.evaluate.question_files import ask_files
    from climatesuite.evaluate.questions import OFFSET, question_rows
    from climatesuite.evaluate.report import write_json

    offset = OFFSET if args.offset is None else args.offset
    asked, found = ask_files(args.predictions, args.truth, offset=offset, regions=args.regions), {}
    if "answers" in args.parts:
        rows = found["answers"] = question_rows(asked)
        judged = [r for r in rows if r["agrees"] is not None]
        print(
            answer_table(rows),
            f"\n{len(disagreeing(rows))} of {len(judged)} leave the truth outside the interval (*)\n",
        )
    if "regions" in args.parts:
        try:
            found["regions"] = region_rows(asked, seed=args.seed)
            print(answer_table(summary(found["regions"])), "\n")
        except DataContractError as error:  # too few members for this part alone
            print(f"left out: {error}\n", file=sys.stderr)
    if "blame" in args.parts:
        found["blame"] = blame_rows(asked)
        print(answer_table(found["blame"]), "\n")
    if args.pictures is not None:
        from climatesuite.evaluate.plots import png
        from climatesuite.evaluate.question_plots import pictures

        args.pictures.mkdir(parents=True, exist_ok=True)
        for stem, axes in pictures(asked, found).items():
            (args.pictures / f"{stem}.png").write_bytes(png(axes))
    write_json(args.out, found)
    print(args.out)
    return 0


def members_of(text: str) -> dict[str, list[str]]:
    """Parse the --members option: JSON ``{"ssp126": ["r1i1p1f1"]}``.

    Raises:
        argparse.ArgumentTypeError: If it is something else.
    """
    try:
        parsed = json.loads(text)
    except json.JSONDecodeError as error:
        raise argparse.ArgumentTypeError(f'{text!r} is not JSON such as {{"ssp126": ["r1i1p1f1"]}} ({error})') from None
    if not isinstance(parsed, dict) or not all(isinstance(v, list) for v in parsed.values()):
        raise argparse.ArgumentTypeError(f"{text!r} does not give a list of members per scenario")
    return {str(k): [str(m) for m in v] for k, v in parsed.items()}


def years(text: str) -> tuple[int, int]:
    """Parse ``2015-2099``.

    Raises:
        argparse.ArgumentTypeError: If it is something else.
    """
    first, _, last = text.partition("-")
    if not (first.isdigit() and (last or first).isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a range of years such as 2015-2099")
    return int(first), int(last or first)


def grid(text: str) -> tuple[int, int]:
    """Parse ``48x72``.

    Raises:
        argparse.ArgumentTypeError: If it is something else.
    """
    rows, _, columns = text.lower().partition("x")
    if not (rows.isdigit() and columns.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is not rows x columns such as 48x72")
    return int(rows), int(columns)


def filled(text: str) -> str:
    """A path or a URL.

    Raises:
        argparse.ArgumentTypeError: If it is empty, as a variable of a script that is not set.
    """
    if not text.strip():
        raise argparse.ArgumentTypeError("an empty path; a . is this folder")
    return text


def local(text: str) -> Path:
    """A path on this machine.

    Raises:
        argparse.ArgumentTypeError: If it is empty or a URL.
    """
    if "://" in text:
        raise argparse.ArgumentTypeError(f"{text} is a URL, only stores lie behind such; give a path")
    return Path(filled(text))


def experiment(text: str) -> str:
    """An experiment_id.

    Raises:
        argparse.ArgumentTypeError: If it could not name a file.
    """
    from climatesuite.archive.facets import NO_FOLDER

    if not text or NO_FOLDER.search(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no name such as ssp370: without slashes, no dot first")
    return text


def existing(text: str) -> Path:
    """A path that exists.

    Raises:
        argparse.ArgumentTypeError: If it does not.
    """
    path = Path(filled(text))
    if not path.exists():
        raise argparse.ArgumentTypeError(f"{text}: no such file or folder")
    return path


def existing_store(text: str) -> str | Path:
    """A path that exists, or a URL.

    Raises:
        argparse.ArgumentTypeError: If it is a path and does not.
    """
    return text if "://" in text else existing(text)
