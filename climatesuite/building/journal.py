"""What is done of a build that is not finished: one small object a part, beside the data and outside the store."""

import hashlib
import json
from collections.abc import Iterable, Sequence

from climatesuite.building.units import Done, FieldPart, ForcingPart, write_part
from climatesuite.store.place import BUILDING, Place
from climatesuite.store.provenance import unmatched

_UNITS = f"{BUILDING}parts/"
_BEGUN = f"{BUILDING}begun"


def do_part(part: FieldPart | ForcingPart, url: str) -> Done:
    """Do one part and note it in the journal; see `units.write_part`."""
    done = write_part(part, url)
    Place(url).write(_name(part), json.dumps(done).encode())
    return done


def finished(place: Place, parts: Sequence[FieldPart | ForcingPart]) -> dict[str, Done]:
    """Parts that an earlier build finished, from the same files; all else that it left is removed.

    Returns:
        Their lines by name of the part.
    """
    sizes, kept = place.sizes(), {}
    for part in parts:
        if _name(part) in sizes:
            done = json.loads(place.read(_name(part)))
            if done["spec"] == part.spec() and _is_there(done, sizes) and _is_same_input(done, part):
                kept[str(part)] = done
    return kept


def has_finished(place: Place) -> bool:
    """Whether any part is finished."""
    return any(name.startswith(_UNITS) for name in place.sizes())


def sweep(
    place: Place, parts: Iterable[FieldPart | ForcingPart], kept: dict[str, Done], published: Iterable[str]
) -> None:
    """Remove data and journal of parts that are not kept."""
    needed = set(published) | {n for done in kept.values() for n in done["objects"]}
    needed |= {_name(p) for p in parts if str(p) in kept}
    ours = (n for n in place.sizes() if n.startswith(_UNITS) or "/c/" in n or n.endswith(".partial"))
    place.remove([n for n in ours if n not in needed])


def forget(place: Place, part: FieldPart | ForcingPart) -> None:
    """Take a part out of the journal: it has to be done again."""
    if place.exists(_name(part)):
        place.remove([_name(part)])


def begin(place: Place) -> None:
    """Mark a place as one where a build is at work: what lies there is its own."""
    place.write(_BEGUN, b"")


def remove_journal(place: Place) -> None:
    """Remove everything that is left of finished builds."""
    place.remove([n for n in place.sizes() if n.startswith(_UNITS) or n == _BEGUN])


def _name(part: FieldPart | ForcingPart) -> str:
    return f"{_UNITS}{hashlib.sha256(json.dumps(part.spec(), sort_keys=True).encode()).hexdigest()[:16]}.json"


def _is_there(done: Done, sizes: dict[str, int]) -> bool:
    return all(sizes.get(name) == size for name, (size, _) in done["objects"].items())


def _is_same_input(done: Done, part: FieldPart | ForcingPart) -> bool:
    return not unmatched(done["sources"], part.paths())
