"""The ``spf`` command: run, train, sample, sensitivity, scenario, inspect, ship, unet, climax."""

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from climatesuite.cli import years
from climatesuite.conventions import TIMESCALES
from climatesuite.errors import sentence


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; 0 is success, 1 a data, file or config error or a failed gate, 2 wrong usage."""
    args = parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    logging.getLogger("spf").setLevel(logging.INFO)
    command: Callable[[argparse.Namespace], int] = args.command
    try:
        return command(args)
    except (ValueError, OSError) as error:  # DataContractError is a ValueError
        print(f"error: {sentence(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the same command goes on where it stopped", file=sys.stderr)
        return 130


def parser() -> argparse.ArgumentParser:
    """All commands and options."""
    top = argparse.ArgumentParser(prog="spf", description="Climate emulation with Spatiotemporal Pyramid Flows.")
    verbs = top.add_subparsers(required=True, metavar="COMMAND")

    run = verbs.add_parser("run", help="an experiment from archive to report, resumable", description=_run.__doc__)
    _experiment(run)
    run.set_defaults(command=_run)

    train = verbs.add_parser("train", help="the first half of run: ingest and train", description=_train.__doc__)
    _experiment(train)
    train.set_defaults(command=_train)

    sample = verbs.add_parser(
        "sample", help="an ensemble of each scenario from an emulator", description=_sample.__doc__
    )
    sample.add_argument("checkpoint", metavar="emulator", help="a name such as cesm2, or emulator.pt of a run")
    about = (
        "ssp370 or another that the emulator or CLIMATE_DATA knows, or a file inputs_<scenario>.nc; one ensemble each"
    )
    sample.add_argument("scenarios", nargs="*", metavar="scenario", help=about)
    sample.add_argument("--scenario", nargs="+", default=[], help="the same, as an option")
    sample.add_argument("--forcings", nargs="+", default=[], help="the same, of files")
    sample.add_argument(
        "--years",
        nargs="+",
        action=_Years,
        help="first and last, e.g. 2015 2099 or 2015-2099 (default: all that are known)",
    )
    sample.add_argument("--variables", nargs="+", default=[], help="fields to keep (default: all)")
    sample.add_argument(
        "--calendar", default="", help="of the result, e.g. standard (default: the Earth system model's)"
    )
    sample.add_argument("--timescale", choices=TIMESCALES, default="year")
    sample.add_argument("--members", type=_positive, default=20, help="ensemble size (default 20)")
    sample.add_argument("--seed", type=int, default=0, help="member i of a seed is always the same (default 0)")
    sample.add_argument("--source", default="", help="which Earth system model, where it was trained on several")
    own = "default: as in the checkpoint's experiment"
    solvers = "euler or adams_bashforth (one network call a step), midpoint or heun (two), runge_kutta (four)"
    sample.add_argument("--solver", help=f"{solvers}; {own}")
    sample.add_argument(
        "--steps", type=_counts, dest="n_steps", help=f"steps a stage, or of each, coarse to fine, e.g. 8,8,2 ({own})"
    )
    sample.add_argument("--shift", type=_shifts, help=f"time shift of the steps, or of each stage ({own})")
    sample.add_argument("--batch", type=_positive, help=f"most windows in a network call ({own})")
    sample.add_argument(
        "--precision",
        choices=("32-true", "bf16-mixed", "auto"),
        default="",
        help="of the network (default: of training)",
    )
    sample.add_argument(
        "--patience", type=_above_zero, default=60.0, help="minutes that processes wait for each other (default 60)"
    )
    sample.add_argument(
        "--out", type=Path, required=True,
        help="NetCDF file x.nc or Zarr store x.zarr; for several scenarios a folder, or a name such as '{scenario}.zarr'; with "
        "'{variable}' in the name a NetCDF file for each variable",
    )  # fmt: skip
    sample.set_defaults(command=_sample, verb=sample)

    scenario = verbs.add_parser(
        "scenario", help="a scenario of one's own: described, checked, written, drawn", description=_scenario.__doc__
    )
    _scenario_options(scenario)
    scenario.set_defaults(command=_scenario)

    sensitivity = verbs.add_parser(
        "sensitivity",
        help="does the forcing matter? CO2 only, aerosols off, CO2 +-10 %%",
        description=_sensitivity.__doc__,
    )
    sensitivity.add_argument("checkpoint", type=Path, help="emulator.pt of a run")
    sensitivity.add_argument("--scenario", required=True, help="e.g. ssp370, or a forcing file")
    sensitivity.add_argument("--folder", type=Path, help="with inputs_<scenario>.nc (default: $CLIMATE_DATA)")
    sensitivity.add_argument(
        "--members", type=_positive, default=8, help="of the scenario and of each variant (default 8)"
    )
    sensitivity.add_argument("--timescale", choices=TIMESCALES, default="decade")
    sensitivity.add_argument("--seed", type=int, default=0, help="of the noise, which all variants share")
    sensitivity.add_argument("--source", default="", help="which Earth system model, where it was trained on several")
    sensitivity.add_argument("--out", type=Path, default=Path("sensitivity.json"))
    sensitivity.set_defaults(command=_sensitivity)

    inspect = verbs.add_parser("inspect", help="what a checkpoint was made from", description=_inspect.__doc__)
    inspect.add_argument("checkpoint", help="emulator.pt of a run, or a name such as cesm2")
    inspect.set_defaults(command=_inspect)

    ship = verbs.add_parser("ship", help="a run as one small checkpoint with its model card", description=_ship.__doc__)
    ship.add_argument("run", type=Path, help="folder of a finished run")
    ship.add_argument("--out", type=Path, default=Path("."), help="folder to write to (default: here)")
    ship.add_argument("--name", default="", help="under which it is loaded (default: the source_id in small letters)")
    ship.set_defaults(command=_ship)

    unet = verbs.add_parser("unet", help="a deterministic UNet on the same data", description=_unet.__doc__)
    _deterministic(unet)
    unet.set_defaults(command=_unet)

    climax = verbs.add_parser(
        "climax", help="a deterministic, ClimaX-like transformer on the same data", description=_climax.__doc__
    )
    _deterministic(climax)
    climax.set_defaults(command=_climax)
    return top


class _Years(argparse.Action):
    """``2015 2099``, ``2015-2099`` or ``2015`` as first and last year."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, *_: Any) -> None:
        try:
            namespace.years = years("-".join(values))
        except argparse.ArgumentTypeError as error:
            parser.error(f"argument --years: {error}")


def _experiment(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("experiment", type=Path, help="a YAML file, see experiments/")
    verb.add_argument("--out", type=Path, help="folder to write (default: runs/<name>, or $SPF_RUNS/<name>)")


def _scenario_options(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("name", help="the named scenario it departs from, e.g. ssp370, or a file written by this command")
    verb.add_argument("--folder", type=Path, help="with inputs_<scenario>.nc (default: $CLIMATE_DATA)")
    verb.add_argument("--table", type=Path, help="CSV of yearly global CO2, CH4, SO2, BC, units in the heads")
    verb.add_argument(
        "--accounting", help="how the table counts: input4mips or rcmip (default: told by its first year)"
    )
    verb.add_argument("--how", choices=("difference", "ratio"), default="difference", help="to the named scenario")
    verb.add_argument("--interpolate", action="store_true", help="fill the years between the table's linearly")
    verb.add_argument(
        "--with-forcings-of", nargs="+", action="append", default=[], metavar="WORD", help="e.g. ssp126 SO2 BC; repeatable"
    )  # fmt: skip
    verb.add_argument("--peak-co2", type=int, metavar="YEAR", help="cumulative CO2 peaks then")
    verb.add_argument(
        "--aod", type=_aod, help="stratospheric optical depth from years on, e.g. 2035:0.1,2050:0.2,2080:0"
    )
    verb.add_argument("--as", dest="renamed", metavar="NAME", help="name of the scenario made (default: <name>-custom)")
    verb.add_argument("--out", type=Path, help="forcing file to write, for spf sample; a folder gets inputs_<name>.nc")
    verb.add_argument("--plot", type=Path, help="picture to write, e.g. mine.png")


def _deterministic(verb: argparse.ArgumentParser) -> None:
    _experiment(verb)
    verb.add_argument("--minutes", type=_above_zero, default=5.0, help="wall time of training (default 5)")
    verb.add_argument("--steps", type=_positive, help="stop after so many steps even if time is left")
    verb.add_argument("--seed", type=int, default=0, help="of first weights and batches (default 0)")


def _run(args: argparse.Namespace) -> int:
    """Ingest, train, sample, score and report. Steps that are done are kept: after an interruption give the same command."""
    from spf.commands.run import run

    return run(args.experiment, _folder(args))


def _train(args: argparse.Namespace) -> int:
    """Ingest and train; leaves emulator.pt in the run's folder."""
    from spf.commands.run import train_only

    return train_only(args.experiment, _folder(args))


def _sample(args: argparse.Namespace) -> int:
    """Draw an ensemble for any scenario and write it as CF NetCDF or Zarr. Under torchrun or srun processes share the members."""
    scenarios = [*args.scenarios, *args.scenario, *args.forcings]
    if not scenarios:
        args.verb.error("give at least one scenario, e.g. --scenario ssp370 or --scenario inputs_<scenario>.nc")
    from spf.commands.sample import sample_files

    given = {name: getattr(args, name) for name in ("solver", "n_steps", "shift", "batch", "seed")}
    settings = {name: value for name, value in given.items() if value is not None}
    files = sample_files(
        args.checkpoint, scenarios, args.timescale, args.members, args.years, settings, args.out, args.precision,
        args.source, 60 * args.patience, args.variables, args.calendar,
    )  # fmt: skip
    if files:
        print("\n".join(map(str, files)))
    return 0


def _scenario(args: argparse.Namespace) -> int:
    """Make a scenario from a named one: by a table, others' forcings, a peak of CO2, aerosol in the stratosphere. Says how it
    differs from the named one and what global mean an energy balance expects; writes the forcing file that sample takes."""
    from spf.commands.scenario import make, write

    made = make(
        args.name, args.folder, args.table, args.accounting, args.how, args.interpolate, args.with_forcings_of, args.peak_co2,
        args.aod, args.renamed,
    )  # fmt: skip
    print(made.summary())
    for file in write(made, args.out, args.plot):
        print(file)
    return 0


def _sensitivity(args: argparse.Namespace) -> int:
    """Draw a scenario with CO2 only, without aerosols, with a tenth more and less CO2; warn of what the emulator does not feel."""
    from spf.commands.sensitivity import sensitivity

    table, warnings = sensitivity(
        args.checkpoint, args.scenario, args.members, args.timescale, args.seed, args.out, args.folder, args.source
    )
    print(table)
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    print(args.out)
    return 0


def _inspect(args: argparse.Namespace) -> int:
    """Print variables, grid, training data, size, licence and digest of a checkpoint."""
    from spf.commands.inspect import describe

    print(describe(args.checkpoint))
    return 0


def _ship(args: argparse.Namespace) -> int:
    """Write a run's emulator in half precision, at most 10 MB, with its scores, limits and the forcings of the scenarios at hand
    inside, and a model card beside it."""
    from spf.commands.ship import ship

    print("\n".join(map(str, ship(args.run, args.out, args.name))))
    return 0


def _unet(args: argparse.Namespace) -> int:
    """Train a UNet from a year's forcings to its fields, and write its years and decades of the test scenario."""
    from spf.commands.unet import unet

    files = unet(args.experiment, _folder(args), args.minutes, args.seed, args.steps)
    print("\n".join(map(str, files)))
    return 0


def _climax(args: argparse.Namespace) -> int:
    """Train a ClimaX-like transformer from a year's forcings to its fields, and write years and decades of the test scenario."""
    from spf.commands.unet import climax

    files = climax(args.experiment, _folder(args), args.minutes, args.seed, args.steps)
    print("\n".join(map(str, files)))
    return 0


def _folder(args: argparse.Namespace) -> Path | None:
    if args.out is not None:
        return args.out
    runs = os.environ.get("SPF_RUNS")
    return Path(runs) / _name(args.experiment) if runs else None


def _name(experiment: Path) -> str:
    from spf.config import load_config

    return load_config(experiment).name


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _aod(text: str) -> dict[int, float]:
    try:
        return {int(year): float(value) for year, value in (part.split(":") for part in text.split(","))}
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list such as 2035:0.1,2050:0.2") from None


def _counts(text: str) -> int | tuple[int, ...]:
    values = tuple(map(_positive, text.split(",")))
    return values if len(values) > 1 else values[0]


def _shifts(text: str) -> float | tuple[float, ...]:
    values = tuple(map(_above_zero, text.split(",")))
    return values if len(values) > 1 else values[0]


def _above_zero(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


if __name__ == "__main__":
    sys.exit(main())
