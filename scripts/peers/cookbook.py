"""In the manner of the OpenAI cookbook's ``api_request_parallel_processor.py``.

One asyncio loop hands out requests, at most eight at once; a failed one comes back with an attempt less; what is
finished goes to a JSON Lines file.  That script itself begins anew when it is started again; ours leaves out the ids
in the file, as people make it do.
"""

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from scripts.peers.shop import AT_ONCE, ATTEMPTS, Shop, play


@dataclass
class Request:
    number: int
    attempts_left: int = ATTEMPTS


def work(shop: Shop) -> None:
    asyncio.run(process(shop))


async def process(shop: Shop) -> None:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(AT_ONCE))
    finished = {number for number, _ in saved(shop)}
    queue: asyncio.Queue[Request] = asyncio.Queue()
    for number in range(len(shop.prompts)):
        if number not in finished:
            queue.put_nowait(Request(number))
    callers = [asyncio.create_task(call(shop, queue)) for _ in range(AT_ONCE)]
    await queue.join()
    for caller in callers:
        caller.cancel()


async def call(shop: Shop, queue: "asyncio.Queue[Request]") -> None:
    while True:
        request = await queue.get()
        request.attempts_left -= 1
        try:
            await asyncio.to_thread(shop.buy, request.number)
        except Exception as problem:
            if request.attempts_left:
                queue.put_nowait(request)
            else:
                append(shop, request.number, str(problem))
        else:
            append(shop, request.number, "")
        queue.task_done()


def append(shop: Shop, number: int, error: str) -> None:
    with (shop.folder / "results.jsonl").open("a") as file:
        file.write(json.dumps([number, error]) + "\n")


def saved(shop: Shop) -> list[tuple[int, str]]:
    path = shop.folder / "results.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [(number, error) for number, error in map(json.loads, lines)]


def believe(shop: Shop) -> dict[str, int]:
    results = dict(saved(shop))
    failed = sum(bool(error) for error in results.values())
    return {"done": len(results) - failed, "failed": failed, "waiting": len(shop.prompts) - len(results)}


if __name__ == "__main__":
    play(work=work, believe=believe, prepare=None)
