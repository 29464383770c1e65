"""Everything that can be wrong with a ledger, in words fit for a user."""


class LedgerError(Exception):
    """Base of all errors of the ledger.  ``code`` is explained by ``bydawn explain CODE``."""

    code = "BD-500"


class LedgerHeld(LedgerError):
    """Another process has this ledger open for writing."""

    code = "BD-511"


class LedgerDamaged(LedgerError):
    """The file is not a ledger, or its content contradicts itself: run ``bydawn verify``."""

    code = "BD-512"


class LedgerNewer(LedgerError):
    """The ledger was written by a newer bydawn: upgrade; it can still be read."""

    code = "BD-513"


class LedgerPlace(LedgerError):
    """The ledger lies where SQLite cannot keep its promises (a network file system): move it to a local disk."""

    code = "BD-514"


class LedgerMissing(LedgerError):
    """There is no ledger at this place."""

    code = "BD-510"


class Fenced(LedgerError):
    """A newer process has taken this ledger over; this one must stop (LED-6)."""

    code = "BD-515"


class CommitFailed(LedgerError):
    """The disk refused a commit (full, or an I/O error).  Nothing more may be sent; start again later (LED-7)."""

    code = "BD-516"


class DiskFull(CommitFailed):
    """No space left for the ledger: free some and run the same command again."""

    code = "BD-517"


class CommandRejected(LedgerError):
    """The state of a task does not allow what was asked of it: look at the task first (``bydawn show TASK``)."""

    code = "BD-518"


class InvariantBroken(LedgerError):
    """A decision would have broken a rule that protects money: this is a bug, nothing more is bought."""

    code = "BD-519"
