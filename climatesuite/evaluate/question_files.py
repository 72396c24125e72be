"""Questions asked of files: the function behind ``climatesuite questions``."""

from collections.abc import Sequence
from pathlib import Path

from climatesuite.errors import DataContractError
from climatesuite.evaluate.masks import SREX
from climatesuite.evaluate.questions import OFFSET, Asked, ask
from climatesuite.evaluate.score_files import Runs, open_given


def ask_files(
    prediction_files: Sequence[str | Path],
    truth_files: Sequence[str | Path] | Runs,
    *,
    offset: float = OFFSET,
    regions: str | Path = SREX,
) -> Asked:
    """Months, years or both of one ensemble, and the truth of its scenario, made ready for questions.

    Args:
        prediction_files: Ensemble files of one model, one a timescale; decades are set aside.
        truth_files: CMIP files of the scenario, or such runs, opened.
        offset: K that 2015-2024 lies above pre-industrial, see ``questions.OFFSET``.
        regions: See ``masks.reference_regions``.

    Raises:
        DataContractError: If two files are of one timescale, or files do not fit; see ``questions.ask``.
    """
    given = open_given(prediction_files, truth_files)
    by_timescale = {}
    for p, path in zip(given.predictions, given.paths, strict=True):
        if p.timescale in by_timescale:
            found = f"{path} is a second file of the timescale {p.timescale}"
            raise DataContractError(
                "questions", found, "one ensemble, a file a timescale", "ask one ensemble at a time"
            )
        by_timescale[p.timescale] = p.fields
    return ask(by_timescale, given.truth, offset=offset, regions=regions)
