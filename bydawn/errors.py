"""What a user is told when something is wrong: what, where, why, the fix, and a code that ``explain`` knows (the codes
are listed in ``bydawn/explain.py``).

Every package below has its own exceptions; at the front door they become a :class:`UserError`.  Texts name the
thing, never a key, and of a prompt no more than the user needs to find it.
"""


class UserError(Exception):
    """A problem that the person at the keyboard can solve; ``exit_code`` as in the reference of commands."""

    def __init__(
        self, code: str, what: str, *, where: str = "", why: str = "", fix: str = "", exit_code: int = 2
    ) -> None:
        super().__init__(what)
        self.code = code
        self.what = what
        self.where = where
        self.why = why
        self.fix = fix
        self.exit_code = exit_code

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        lines = [f"{self.code} {place}{self.what}"]
        if self.why:
            lines.append(f"  why: {self.why}")
        if self.fix:
            lines.append(f"  fix: {self.fix}")
        return "\n".join(lines)
