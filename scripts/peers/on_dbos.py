"""Over DBOS on SQLite: a workflow per prompt on a queue, and its two halves as steps, so that a job's id is kept.

Interrupted workflows go on from the last completed step when the process is launched again.  The workflow's id is
the prompt's number: enqueueing it once more changes nothing.
"""

from collections import Counter

from dbos import DBOS, DBOSClient, DBOSConfig, SetWorkflowID

from scripts.peers.shop import AT_ONCE, ATTEMPTS, Shop, opened, play

QUEUE = "images"


@DBOS.step(retries_allowed=True, max_attempts=ATTEMPTS)
def order(number: int) -> str:
    return opened().order(number)


@DBOS.step(retries_allowed=True, max_attempts=ATTEMPTS)
def collect(number: int, ordered: str) -> None:
    opened().collect(number, ordered)


@DBOS.workflow()
def buy(number: int) -> None:
    collect(number, order(number))


def address(shop: Shop) -> str:
    return f"sqlite:///{shop.folder / 'dbos.sqlite'}"


def work(shop: Shop) -> None:
    config: DBOSConfig = {"name": "images", "system_database_url": address(shop)}
    DBOS(config=config)
    DBOS.launch()
    DBOS.register_queue(QUEUE, worker_concurrency=AT_ONCE)
    handles = []
    for number in range(len(shop.prompts)):
        with SetWorkflowID(f"image-{number}"):
            handles.append(DBOS.enqueue_workflow(QUEUE, buy, number))
    for handle in handles:
        handle.get_result()
    DBOS.destroy()


def believe(shop: Shop) -> dict[str, int]:
    client = DBOSClient(system_database_url=address(shop))
    states = Counter(workflow.status for workflow in client.list_workflows(name=buy.__qualname__))
    done, failed = states.pop("SUCCESS", 0), states.pop("ERROR", 0)
    return {"done": done, "failed": failed, "waiting": sum(states.values())}


if __name__ == "__main__":
    play(work=work, believe=believe, prepare=None)
