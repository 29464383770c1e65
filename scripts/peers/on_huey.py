"""Over huey on SQLite, as its deployment guide has it: retries on, interrupted tasks enqueued again.

The guide also says that SIGKILL leaves no time for that, and that such a task is lost.  ``--refill`` is an owner who
knows: before each start, what has no image and does not wait in the queue is enqueued again.
"""

import json
import os

from huey import SqliteHuey
from huey.signals import SIGNAL_INTERRUPTED
from huey.utils import Error

from scripts.peers.shop import AT_ONCE, ATTEMPTS, Shop, opened, play

huey = SqliteHuey("images", filename=os.path.join(os.environ["PEER_FOLDER"], "huey.db"))


@huey.task(retries=ATTEMPTS - 1, retry_delay=1)
def buy(number: int) -> int:
    opened().buy(number)
    return number


@huey.signal(SIGNAL_INTERRUPTED)
def on_interrupted(_signal: str, task: object, *_: object) -> None:
    huey.enqueue(task)


def prepare(shop: Shop) -> None:
    enqueued = shop.folder / "enqueued.json"
    if not enqueued.exists():
        numbers = list(range(len(shop.prompts)))
    elif os.environ.get("PEER_REFILL"):
        waiting = {task.args[0] for task in (*huey.pending(), *huey.scheduled())}
        numbers = [number for number in shop.missing() if number not in waiting]
    else:
        return
    for number in numbers:
        buy(number)
    enqueued.write_text(json.dumps(len(numbers)))


def work(_: Shop) -> None:
    """The consumer: it never ends by itself, SIGINT stops it gracefully."""
    huey.create_consumer(workers=AT_ONCE, worker_type="thread").run()


def believe(_: Shop) -> dict[str, int]:
    results = [huey.serializer.deserialize(raw) for raw in huey.storage.result_items().values()]
    failed = sum(isinstance(result, Error) for result in results)
    return {
        "done": len(results) - failed,
        "failed": failed,
        "waiting": huey.pending_count() + huey.scheduled_count(),
    }


if __name__ == "__main__":
    play(work=work, believe=believe, prepare=prepare)
