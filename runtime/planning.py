"""What a batch will cost and how long it will take, before anything is spent."""

import msgspec


class Group(msgspec.Struct, frozen=True):
    """Tasks that are alike for the planner, counted.

    ``takers`` are the providers that can take them, ``shared`` how many repeat another one of the group and are
    bought once with it.
    """

    model: str
    aspect: str
    resolution: str
    references: bool
    takers: tuple[str, ...]
    count: int
    shared: int = 0
