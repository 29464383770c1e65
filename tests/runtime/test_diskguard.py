from runtime.diskguard import DiskGuard

MIB = 1 << 20


def test_room_needs_every_image_in_flight_and_the_ledger() -> None:
    guard = DiskGuard(lambda: 20 * MIB, first_guess=2 * MIB)
    assert guard.room(6)
    assert not guard.room(7)


def test_small_images_lower_the_guess_slowly_and_large_ones_raise_it_at_once() -> None:
    guard = DiskGuard(lambda: 20 * MIB, first_guess=2 * MIB)
    for _ in range(30):
        guard.seen(100 << 10)
    assert guard.room(60)
    guard.seen(8 * MIB)
    assert guard.room(1)
    assert not guard.room(2)
