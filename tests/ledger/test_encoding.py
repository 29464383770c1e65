"""The bytes of the chain, and tags."""

from itertools import combinations

from ledger.encoding import EVENT_TYPES, chain_next, chain_start


def test_nothing_can_shift_between_the_columns_of_an_event() -> None:
    """LED-8: every column is part of the head, and so is where it ends."""
    start = chain_start("ledger")
    base = (1, 2, 3, 4, 5, b"tag", b"key", b"data")
    others = [
        (9, 2, 3, 4, 5, b"tag", b"key", b"data"),
        (1, 9, 3, 4, 5, b"tag", b"key", b"data"),
        (1, 2, 9, 4, 5, b"tag", b"key", b"data"),
        (1, 2, 3, 9, 5, b"tag", b"key", b"data"),
        (1, 2, 3, 4, 9, b"tag", b"key", b"data"),
        (1, 2, 3, 4, 5, b"tagk", b"ey", b"data"),
        (1, 2, 3, 4, 5, b"tag", b"keyd", b"ata"),
        (1, 2, 3, 4, 5, b"tag", b"", b"keydata"),
        (1, 2, 3, 4, 5, b"tag", None, b"keydata"),
        (1, 2, 3, 4, 5, b"tagkey", None, b"data"),
    ]
    heads = [chain_next(start, *columns) for columns in (base, *others)]
    assert all(one != two for one, two in combinations(heads, 2))
    assert chain_next(chain_start("another"), *base) != heads[0]


def test_tags_are_unique_and_carry_a_version() -> None:
    """LED-9: written by hand, never derived from a class name."""
    tags = [event_type.TYPE for event_type in EVENT_TYPES]
    assert len(set(tags)) == len(tags)
    for tag in tags:
        stream, name, version = tag.split(".")
        assert stream in ("runtime", "account", "batch", "task")
        assert name
        assert version[0] == "v"
        assert int(version[1:]) >= 1
