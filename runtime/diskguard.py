"""Stops buying while the disk still holds everything that is in flight."""

from collections.abc import Callable

_LEDGER_RESERVE = 8 << 20  # for the ledger's own growth until the night has drained
_FIRST_GUESS = 2 << 20  # bytes of an image before any was seen


class DiskGuard:
    """Learns how large images are; asked before each purchase."""

    def __init__(self, free_bytes: Callable[[], int], *, first_guess: int = _FIRST_GUESS) -> None:
        self._free_bytes = free_bytes
        self._guess = float(first_guess)
        self._seen = 0

    def __repr__(self) -> str:
        return f"<DiskGuard image={self._guess / 1024:.0f} KiB seen={self._seen}>"

    def room(self, images: int) -> bool:
        """Whether the disk would hold ``images`` more, and the ledger beside them."""
        return self._free_bytes() >= images * self._guess + _LEDGER_RESERVE

    def seen(self, size: int) -> None:
        """An image of this size was stored: large ones raise the guess at once, small ones lower it slowly."""
        self._seen += 1
        wanted = size * 1.5
        self._guess = max(wanted, self._guess * 0.9) if self._guess > wanted else wanted
