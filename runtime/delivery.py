"""How an attempt ended, in one form for every way in which that is told: by a poll, in a reply, in a file."""

from adapters.base import Failed, Finished
from ledger.commands import Record
from ledger.decisions import NewPayload
from ledger.events import AttemptFailed, ResultReady
from runtime.ports import Clock
from runtime.work import TaskLog, Work


async def record_ready(log: TaskLog, clock: Clock, work: Work, number: int, result: Finished, *, life_s: float) -> None:
    """Record that attempt ``number`` has its result, and let the task remember where.

    ``life_s`` is the provider's documented lifetime of a result, for those that do not state their own.
    """
    life_s = result.expires_s or life_s
    url, payload = log.text(result.url) if result.url else (None, None)
    payloads: list[NewPayload] = [] if payload is None else [payload]
    fact = ResultReady(
        attempt=number,
        url=url,
        cost_microusd=result.cost_microusd,
        expires_at_us=clock.now_us() + int(life_s * 1e6) if life_s else 0,
        model_version=result.model_version,
    )
    work.url, work.data = result.url, result.data
    work.expires = clock.monotonic() + life_s if life_s else float("inf")
    await log.record(work, Record(fact), payloads=payloads)


async def record_failed(log: TaskLog, work: Work, number: int, outcome: Failed) -> None:
    """Record that attempt ``number`` ended without a result, and what it cost all the same."""
    attempt = work.state.attempts[number - 1]
    cost = outcome.cost_microusd or (attempt.ceiling_microusd if outcome.charged else 0)
    detail, payload = log.text(outcome.detail)
    fact = AttemptFailed(attempt=number, reason=outcome.reason, cost_microusd=cost, detail=detail)
    await log.record(work, Record(fact, retryable=outcome.retryable), payloads=[payload])
