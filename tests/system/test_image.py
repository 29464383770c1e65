"""``bydawn image``: one image, bought once however often the same one is asked for."""

import json
from pathlib import Path

from adapters.sandbox.picture import read_digest
from tests.system.shop import Shop


def asked(shop: Shop, prompt: str, *more: str) -> Path:
    """Ask for an image; gives where it is said to be."""
    done = shop.run("image", prompt, "--sandbox", "--provider", "together", *more)
    assert done.code == 0, done.err
    return shop.folder / done.out.strip()


def test_the_same_request_again_is_not_bought_again(shop: Shop) -> None:
    first = asked(shop, "a lone mug, twice")
    assert asked(shop, "a lone mug, twice") == first
    (job,) = shop.bill()
    assert read_digest(first.read_bytes()).hex() == job["digest"]
    other = asked(shop, "a lone mug, twice", "--again")
    assert other != first
    assert len(shop.bill()) == 2
    assert asked(shop, "a lone mug, twice", "--aspect", "16:9") not in (first, other)
    assert len(shop.bill()) == 3
    assert shop.run("verify", "--sandbox").code == 0


def test_it_goes_where_it_is_wanted(shop: Shop) -> None:
    path = asked(shop, "a lone mug, copied", "-o", "mug.jpg")
    assert path == shop.folder / "mug.jpg"
    assert read_digest(path.read_bytes()).hex() == shop.bill()[0]["digest"]
    told = shop.run("image", "a lone mug, copied", "--sandbox", "-o", "mug.png")
    assert told.err == "mug.png holds a jpg, as the provider made it\n"
    refused = shop.run("image", "a lone mug, copied", "--sandbox", "-o", "nowhere/mug.jpg")
    assert refused.code == 7, refused.err
    assert "BD-104" in refused.err
    assert len(shop.bill()) == 1


def test_what_is_refused_is_not_wanted_later(shop: Shop) -> None:
    refused = shop.run("image", "a lone mug, refused", "--sandbox", "--aspect", "7:5")
    assert refused.code == 2, refused.err
    asked(shop, "a lone mug, taken")
    assert [job["prompt"] for job in shop.bill()] == ["a lone mug, taken"]


def test_without_consent_nothing_is_bought_by_the_next_one_either(shop: Shop) -> None:
    shop.leave_practice(together="sandbox-of-a-test")
    command = ("image", "--ledger", "bydawn.db", "--provider", "together")
    refused = shop.run(*command, "a lone mug, too dear")
    assert refused.code == 2, refused.err
    assert "BD-072" in refused.err
    done = shop.run(*command, "a lone mug, agreed to", "--yes")
    assert done.code == 0, done.err
    assert [job["prompt"] for job in shop.bill()] == ["a lone mug, agreed to"]
    assert shop.run(*command, "a lone mug, too dear", "--yes").code == 0
    assert len(shop.bill()) == 2


def test_json_tells_the_path(shop: Shop) -> None:
    done = shop.run("image", "a lone mug, told", "--sandbox", "--provider", "together", "--json")
    lines = [json.loads(line) for line in done.out.splitlines()]
    assert [line["type"] for line in lines] == ["result", "summary", "image"]
    assert Path(lines[-1]["path"]).exists()


def test_killed_in_the_middle_of_a_synchronous_call_it_is_held_and_not_bought_again(shop: Shop) -> None:
    """W14: nobody can say whether Together made it."""
    command = ("image", "a lone mug, killed", "--sandbox", "--provider", "together")
    assert shop.run(*command, fault="reply_read:1").code == -9
    again = shop.run(*command)
    assert again.code == 3, again.err
    assert shop.phases("single") == {"held": 1}
    assert len(shop.bill()) == 1


def test_killed_when_the_reply_is_durable_the_image_is_there(shop: Shop) -> None:
    """W14: the spool has it, though nobody recorded it."""
    command = ("image", "a lone mug, spooled", "--sandbox", "--provider", "together")
    assert shop.run(*command, fault="reply_spooled:1").code == -9
    again = shop.run(*command)
    assert again.code == 0, again.err
    (job,) = shop.bill()
    assert read_digest((shop.folder / again.out.strip()).read_bytes()).hex() == job["digest"]
