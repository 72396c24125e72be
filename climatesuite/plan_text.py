"""A plan for a person: runs by model and experiment, sizes, what is missing, and how it stands to what was aimed at."""

from pathlib import Path

from climatesuite.conventions import FORCINGS
from climatesuite.plan import BYTES_A_VALUE, Part, Plan, Run, free_bytes

SHOWN = 12
COMPRESSED = 1.7
"""Raw over compressed size of monthly float32 tas and pr, as stores here are written (bit shuffle, zstd)."""


def text(plan: Plan) -> str:
    """The whole plan."""
    recipe = plan.recipe
    lines = [f"{recipe.get('name', 'recipe')}" + (f": {recipe['about']}" if recipe.get("about") else "")]
    for part in plan.parts:
        lines += ["", *_part(part)]
    lines += ["", *_size(plan)]
    lines += [f"missing: {m}" for m in plan.missing]
    return "\n".join([*lines, *_target(plan)])


def _part(part: Part) -> list[str]:
    whole = [r for r in part.runs if not r.problems]
    lines = [
        f"part {part.name}, from {part.origin}: {len(whole)} members, {_n(sum(r.n_years for r in whole))} simulation-years"
    ]
    lines += _table(whole)
    lines += _listed(
        "not whole",
        [f"{r.source_id} {r.experiment_id} {r.member}: {'; '.join(r.problems)}" for r in part.runs if r.problems],
    )
    lines += _listed("missing", list(part.missing)) + _listed("set aside", list(part.set_aside))
    return lines + [f"  note: {n}" for n in part.notes]


def _table(runs: list[Run]) -> list[str]:
    """Members by source and experiment, and years by source."""
    if not runs:
        return ["  no runs"]
    experiments = list(
        dict.fromkeys(r.experiment_id for r in sorted(runs, key=lambda r: (r.years[0], r.experiment_id)))
    )
    widths = [max(len(e), 6) for e in experiments]
    lines = [
        f"  {'':14s}" + "".join(f"  {e:>{w}s}" for e, w in zip(experiments, widths, strict=True)) + "  members   years"
    ]
    for source in [*dict.fromkeys(r.source_id for r in runs), None]:
        own = [r for r in runs if source is None or r.source_id == source]
        counts = [sum(r.experiment_id == e for r in own) for e in experiments]
        cells = "".join(f"  {n or '–':>{w}}" for n, w in zip(counts, widths, strict=True))
        lines.append(f"  {source or 'all':14s}{cells}  {len(own):7d} {_n(sum(r.n_years for r in own)):>7s}")
    return lines if len({r.source_id for r in runs}) > 1 else lines[:-1]


def _listed(what: str, items: list[str]) -> list[str]:
    more = [f"  {what}: and {len(items) - SHOWN} more"] if len(items) > SHOWN else []
    return [f"  {what}: {item}" for item in items[:SHOWN]] + more


def _size(plan: Plan) -> list[str]:
    """Bytes read and written: months of every field and map; years and decades add an eleventh."""
    recipe = plan.recipe
    raw, maps, read = 0.0, 0, 0
    n_maps = sum(FORCINGS[n].is_gridded for n in recipe.get("forcings", ()))
    for part in plan.parts:
        shape = tuple(recipe["grid"]) if recipe.get("grid") else part.shape
        runs = [r for r in part.runs if not r.problems]
        read += sum(r.bytes for r in runs)
        if shape is None:
            continue
        cells, fields = shape[0] * shape[1], len(recipe.get("variables", ("tas", "pr")))
        raw += sum(r.n_years for r in runs) * (12 + 1 + 0.1) * cells * fields * BYTES_A_VALUE
        scenarios = {(r.source_id, r.experiment_id): r.n_years for r in runs}
        maps += sum(scenarios.values()) * 12 * cells * n_maps * BYTES_A_VALUE
    names = ", ".join([*map(str, recipe.get("variables", ("tas", "pr"))), *map(str, recipe.get("forcings", ()))])
    grid = " x ".join(map(str, recipe["grid"])) if recipe.get("grid") else "the source's grid"
    lines = [f"would be read: {_bytes(read)}"] if read else []
    disk = (raw + maps) / COMPRESSED
    lines.append(f"would be written: {names}; months, years, decades on {grid}")
    lines.append(f"  {_bytes(raw)} of fields and {_bytes(maps)} of forcings uncompressed, about {_bytes(disk)} on disk")
    if recipe.get("out"):
        free = free_bytes(Path(recipe["out"]).absolute())
        verdict = " — too little" if free < disk else ""
        lines.append(f"free where {recipe['out']} would be: {_bytes(free)}{verdict}")
    return lines


def _target(plan: Plan) -> list[str]:
    target = plan.recipe.get("target")
    if not target:
        return []
    lines = ["", f"members found {plan.members}, aimed at {target['members']} ({plan.members - target['members']:+d})"]
    lines.append(
        f"simulation-years found {_n(plan.years)}, aimed at {_n(target['years'])} ({plan.years - target['years']:+,d})"
    )
    return [*lines, *(f"difference: {d}" for d in plan.recipe.get("differences", ()))]


def _n(number: int) -> str:
    return f"{number:,d}"


def _bytes(size: float) -> str:
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if size >= factor:
            return f"{size / factor:.3g} {unit}"
    return f"{size / 1e3:.3g} kB"
