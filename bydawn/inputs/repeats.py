"""Finding repeats among millions of values in eight bytes each.

Hashes are kept in buckets and sorted one bucket at a time, so that the peak is little above the hashes
themselves.  A set of the values of a million rows would take over 100 MB.  A hash may repeat by chance: what it
finds are suspects, to be compared as text by whoever needs to be sure.
"""

from array import array
from collections.abc import Hashable
from itertools import pairwise

_BUCKETS = 64


class Repeats:
    """Hashes of everything that was added; in memory of this process only, since Python salts its hashes."""

    def __init__(self) -> None:
        self._buckets = tuple(array("q") for _ in range(_BUCKETS))

    def add(self, value: Hashable) -> None:
        number = hash(value)
        self._buckets[number & (_BUCKETS - 1)].append(number)

    def discard(self, value: Hashable) -> None:
        """Take back one :meth:`add`; slow, for the few that turn out not to count."""
        number = hash(value)
        self._buckets[number & (_BUCKETS - 1)].remove(number)

    def suspects(self) -> set[int]:
        """Return the hashes that were added more than once."""
        found: set[int] = set()
        for bucket in self._buckets:
            if len(set(bucket)) == len(bucket):
                continue
            numbers = sorted(bucket)
            found.update(one for one, two in pairwise(numbers) if one == two)
        return found

    def distinct(self) -> int:
        """Count different values (as far as their hashes tell)."""
        return sum(len(set(bucket)) for bucket in self._buckets)
