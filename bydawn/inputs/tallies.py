"""Who can take what, counted: the shapes of the usable tasks for the plan, and why some providers cannot take some."""

from collections import Counter
from collections.abc import Mapping

from adapters.base import Codec, ImageRequest
from bydawn.inputs.judging import Judge
from bydawn.inputs.repeats import Repeats
from runtime.planning import Group
from runtime.requests import what_is_wanted

_KEPT_REASONS = 20  # different reasons per provider


class _Tally:
    """Tasks of one shape that the same providers can take."""

    __slots__ = ("count", "repeats")

    def __init__(self) -> None:
        self.count = 0
        self.repeats = Repeats()


class Tallies:
    """What one reading of an input, or of a past batch, found usable."""

    def __init__(self, codecs: Mapping[str, Codec]) -> None:
        self._codecs = codecs
        self._judge = Judge(codecs)
        self._tallies: dict[tuple[str, str, str, bool, tuple[str, ...]], _Tally] = {}
        self._refusals: dict[str, Counter[str]] = {provider: Counter() for provider in codecs}

    def takers(self, request: ImageRequest, *, provider: str = "") -> tuple[str, ...]:
        """Return who can take the request, noting why others cannot; ``provider`` names the only one that may."""
        takers = self._judge.takers(request)
        if len(takers) < len(self._codecs):
            self._note_refusals(request)
        return self._among(takers, provider)

    def add(self, request: ImageRequest, takers: tuple[str, ...], *, variant: int) -> None:
        tally = self._tally(request, takers)
        tally.count += 1
        tally.repeats.add((what_is_wanted(request), variant))

    def discard(self, request: ImageRequest, *, provider: str, variant: int) -> None:
        """Take back one :meth:`add` of a request that turned out to be unusable later."""
        tally = self._tally(request, self._among(self._judge.takers(request), provider))
        tally.count -= 1
        tally.repeats.discard((what_is_wanted(request), variant))

    def untaken(self, request: ImageRequest, *, provider: str = "") -> tuple[str, str]:
        """Say of a request that nobody takes which field is to blame, and what the providers say."""
        reasons = self._judge.reasons(request)
        if provider:
            reasons = {provider: reasons[provider]}
        field = self._judge.blame(request, provider=provider)
        texts = dict.fromkeys(reasons.values())
        if len(texts) == 1:
            return field, next(iter(texts))
        return field, "; ".join(f"{who}: {reason}" for who, reason in reasons.items())

    def groups(self, *, shared: bool = True) -> tuple[Group, ...]:
        """The shapes with their counts; ``shared``: what repeats another task of its shape is bought once with it."""
        return tuple(
            Group(
                model=model,
                aspect=aspect,
                resolution=resolution,
                references=references,
                takers=takers,
                count=tally.count,
                shared=tally.count - tally.repeats.distinct() if shared else 0,
            )
            for (model, aspect, resolution, references, takers), tally in sorted(self._tallies.items())
        )

    def refusals(self) -> dict[str, dict[str, int]]:
        """Per provider what it cannot take and how often, though another one can."""
        return {provider: dict(reasons) for provider, reasons in self._refusals.items() if reasons}

    def _among(self, takers: tuple[str, ...], provider: str) -> tuple[str, ...]:
        if not provider:
            return takers
        return (provider,) if provider in takers else ()

    def _tally(self, request: ImageRequest, takers: tuple[str, ...]) -> _Tally:
        shape = (request.model, request.aspect, request.resolution, bool(request.references), takers)
        tally = self._tallies.get(shape)
        if tally is None:
            tally = self._tallies[shape] = _Tally()
        return tally

    def _note_refusals(self, request: ImageRequest) -> None:
        for provider, reason in self._judge.reasons(request).items():
            reasons = self._refusals[provider]
            reasons[reason if reason in reasons or len(reasons) < _KEPT_REASONS else "other reasons"] += 1
