"""Over litequeue, a queue in SQLite: popped messages are locked until they are done.

Locks do not expire: its ``list_locked`` and ``retry`` are there to free them again, and we do so at each start.  It
does not count attempts either; ours are counted while the process lives.
"""

import contextlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from litequeue import LiteQueue, MessageStatus

from scripts.peers.shop import AT_ONCE, ATTEMPTS, Shop, play


def connected(shop: Shop) -> LiteQueue:
    return LiteQueue(shop.folder / "litequeue.db", timeout=60)


def prepare(shop: Shop) -> None:
    """Put all prompts into the queue, once."""
    if not (shop.folder / "litequeue.db").exists():
        queue = connected(shop)
        for number in range(len(shop.prompts)):
            queue.put(str(number))


def work(shop: Shop) -> None:
    queue = connected(shop)
    for message in list(queue.list_locked(threshold_seconds=0)):
        queue.retry(message.message_id)
    failures: Counter[str] = Counter()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for worker in [pool.submit(consume, shop, failures) for _ in range(AT_ONCE)]:
            worker.result()


def consume(shop: Shop, failures: "Counter[str]") -> None:
    with contextlib.closing(connected(shop)) as queue:  # a connection of its own: each has its transactions
        while message := queue.pop():
            try:
                shop.buy(int(message.data))
            except Exception:
                failures[message.message_id] += 1
                if failures[message.message_id] < ATTEMPTS:
                    queue.retry(message.message_id)
                else:
                    queue.mark_failed(message.message_id)
            else:
                queue.done(message.message_id)


def believe(shop: Shop) -> dict[str, int]:
    queue = connected(shop)
    rows = queue.conn.execute(f"SELECT status, count(*) FROM {queue.table} GROUP BY status")
    counts = {MessageStatus(status): int(count) for status, count in rows}
    waiting = counts.get(MessageStatus.READY, 0) + counts.get(MessageStatus.LOCKED, 0)
    failed = counts.get(MessageStatus.FAILED, 0)
    return {"done": counts.get(MessageStatus.DONE, 0), "failed": failed, "waiting": waiting}


if __name__ == "__main__":
    play(work=work, believe=believe, prepare=prepare)
