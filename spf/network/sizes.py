"""Named sizes of the network. No torch here."""

from collections.abc import Mapping
from typing import NamedTuple


class Size(NamedTuple):
    """Width of a token, number of blocks, attention heads."""

    width: int
    depth: int
    heads: int


SIZES: Mapping[str, Size] = {
    "1M": Size(96, 3, 3),
    "8M": Size(192, 6, 3),
    "30M": Size(320, 8, 5),
    "200M": Size(640, 13, 10),
    "600M": Size(1024, 16, 16),
}
"""By number of parameters, of joint attention, 2 fields and 4 forcings; ``network: {size: 200M}`` in an experiment."""
