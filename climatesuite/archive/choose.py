"""Which files a request means, and whether they are complete: every member asked for, every variable of every member."""

from collections.abc import Mapping, Sequence

from climatesuite.archive.entry import Entry, Scan, member_key
from climatesuite.conventions import VARIABLES
from climatesuite.errors import DataContractError

Key = tuple[str, str]


def select(
    found: Scan,
    variables: Sequence[str] | None = None,
    experiments: Sequence[str] | None = None,
    members: Mapping[str, Sequence[str]] | Sequence[str] | None = None,
    sources: Sequence[str] | None = None,
) -> dict[Key, dict[str, dict[str, list[Entry]]]]:
    """The entries of a request, by run, member and variable.

    Raises:
        DataContractError: If nothing matches, or a requested scenario, member or variable is missing.
    """
    usable = [e for e in found.entries if e.variable_id in (variables or VARIABLES) and e.variable_id in VARIABLES]
    usable = [
        e
        for e in usable
        if (not experiments or e.experiment_id in experiments) and (not sources or e.source_id in sources)
    ]
    if not usable:
        reasons = "; ".join(f"{r.path.name}: {r.reason}" for r in found.rejected[:3])
        there = sorted({f"{e.source_id}/{e.experiment_id}" for e in found.entries})
        seen = (
            f"found {', '.join(there)}" if there else reasons or "found nothing"
        )  # what is there helps more than what is not
        raise DataContractError(
            "archive", f"no usable files ({seen})",
            f"monthly {', '.join(variables or VARIABLES)}" + (f" of {', '.join(experiments)}" if experiments else ""),
            "correct the path or the request",
        )  # fmt: skip
    runs: dict[Key, dict[str, dict[str, list[Entry]]]] = {}
    for e in usable:
        if _wants(members, e):
            runs.setdefault((e.source_id, e.experiment_id), {}).setdefault(e.member, {}).setdefault(
                e.variable_id, []
            ).append(e)
    _check_complete(runs, found, variables, experiments, members)
    return runs


def _wants(members: Mapping[str, Sequence[str]] | Sequence[str] | None, e: Entry) -> bool:
    if members is None:
        return True
    wanted = members.get(e.experiment_id, []) if isinstance(members, Mapping) else members
    return e.member in wanted


def _check_complete(
    runs: Mapping[Key, Mapping[str, Mapping[str, list[Entry]]]],
    found: Scan,
    variables: Sequence[str] | None,
    experiments: Sequence[str] | None,
    members: Mapping[str, Sequence[str]] | Sequence[str] | None,
) -> None:
    aside = {r.path.name: r.reason for r in found.rejected}
    hint = "; set aside: " + "; ".join(f"{n}: {r}" for n, r in list(aside.items())[:3]) if aside else ""
    if members is None:
        _check_variants(runs)
    elif not runs:
        by_scenario = members if isinstance(members, Mapping) else {"any scenario": members}
        wanted = "; ".join(f"{', '.join(labels)} of {scenario}" for scenario, labels in by_scenario.items())
        there = sorted({e.member for e in found.entries}, key=member_key)
        raise DataContractError("archive", f"members {', '.join(there)}{hint}", wanted, "correct the members")
    if isinstance(members, Mapping):
        experiments = [*(experiments or []), *members]
    for name in experiments or []:
        if not any(e == name for _, e in runs):
            raise DataContractError(
                f"scenario {name}", f"no members in the archive{hint}", "at least one", "add its files or drop it"
            )
    for (source, scenario), by_member in runs.items():
        asked = members.get(scenario, []) if isinstance(members, Mapping) else (members or [])
        absent = [m for m in asked if m not in by_member]
        if absent:
            raise DataContractError(
                f"{source} {scenario}",
                f"no member {', '.join(absent)}, found {', '.join(sorted(by_member, key=member_key))}{hint}",
                "every member that is asked for", "correct the list or add the files",
            )  # fmt: skip
        everything = variables or sorted({v for by_variable in by_member.values() for v in by_variable})
        for member, by_variable in by_member.items():
            lacking = [v for v in everything if v not in by_variable]
            if lacking:
                raise DataContractError(
                    f"{source} {scenario} {member}", f"no {', '.join(lacking)}{hint}", f"{', '.join(everything)} for every member",
                    "add the files or leave the member out",
                )  # fmt: skip


def _check_variants(runs: Mapping[Key, Mapping[str, object]]) -> None:
    """Refuse to pool members of differing physics or forcing (p, f) unless they are asked for by name."""
    for (source, scenario), by_member in runs.items():
        kinds = sorted({label[label.index("p") :] for label in by_member if "p" in label})
        if len(kinds) > 1:
            raise DataContractError(
                f"{source} {scenario}", f"members of kinds {', '.join(kinds)}", "one physics and one forcing (p, f)",
                "name the members that belong together",
            )  # fmt: skip


def incomplete(found: Scan) -> list[str]:
    """A sentence for every member that lacks a variable which others of its source have, or months between its files."""
    variables: dict[str, set[str]] = {}
    members: dict[tuple[str, str, str], dict[str, list[Entry]]] = {}
    for e in found.entries:
        if e.variable_id in VARIABLES:
            variables.setdefault(e.source_id, set()).add(e.variable_id)
            members.setdefault((e.source_id, e.experiment_id, e.member), {}).setdefault(e.variable_id, []).append(e)
    lines = []
    for run in sorted(members, key=lambda r: (r[0], r[1], member_key(r[2]))):
        lacking = sorted(variables[run[0]] - set(members[run]))
        lines += [f"incomplete: {' '.join(run)} has no {', '.join(lacking)}"] if lacking else []
        for name, entries in sorted(members[run].items()):
            for stored in dict.fromkeys(e.stored for e in entries):
                own = [e for e in entries if e.stored == stored]
                lines += [f"incomplete: {stored or name} of {' '.join(run)}: {text}" for text in _between(own)]
    return lines


def _between(entries: Sequence[Entry]) -> list[str]:
    """Months that lie between files or in two of them, by the months that each one holds at its ends."""
    texts, ordered = [], sorted(entries, key=lambda e: (e.start, e.stop))
    for a, b in zip(ordered, ordered[1:], strict=False):
        apart = _month(b.start) - _month(a.stop)
        if apart > 1:
            texts.append(f"no months between {a.stop} and {b.start}")
        elif apart < 1 and a.slot == b.slot:
            texts.append(f"{a.path.name} and {b.path.name} overlap")
    return texts


def _month(text: str) -> int:
    return 12 * int(text[:4]) + int(text[4:6])
