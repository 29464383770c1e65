"""What every reader yields, whatever the format."""

import msgspec

MAX_CELL_CHARS = 1 << 20  # bounds memory per row; the longest prompt any provider takes is 20,000


class Row(msgspec.Struct, frozen=True, gc=False):
    """One record.  ``number`` counts records after the header from 1, blank lines left out.

    A record that cannot be read has a ``problem`` and the text it was found in instead of cells.
    """

    number: int
    cells: dict[str, str] = {}
    problem: str = ""
    text: str = ""
