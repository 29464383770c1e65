"""Which of the chosen providers can take a request, and why the others cannot.

Asking every codec about every row would cost more than all the rest of the reading.  So the verdict for a plain
request (no references, no seed, no pin) is remembered by its shape, on one assumption about codecs: beyond the
shape, a verdict depends on the prompt by its length only, and a shorter prompt is never worse.  Length may mean
characters or bytes; both are respected.
"""

from collections.abc import Mapping

import msgspec

from adapters.base import Codec, ImageRequest

# What to put in place of a field to see whether it is the one to blame.
_NEUTRAL: tuple[tuple[str, dict[str, object]], ...] = (
    ("prompt", {"prompt": "x"}),
    ("aspect_ratio", {"aspect": "1:1"}),
    ("resolution", {"resolution": "1K"}),
    ("images", {"references": ()}),
    ("images", {"references": (), "aspect": "1:1"}),  # the default aspect of rows with references is auto
    ("output_format", {"output_format": ""}),
    ("seed", {"seed": None}),
    ("version", {"model_version": ""}),
    ("grounding", {"grounding": False}),
    ("model", {"model": "nano-banana-2"}),
)


class Judge:
    """Asks the codecs, and remembers."""

    def __init__(self, codecs: Mapping[str, Codec]) -> None:
        if not codecs:
            raise ValueError("at least one provider must be chosen")
        self._codecs = dict(codecs)
        self._known: dict[tuple[str, str, str, str, bool], _Verdict] = {}

    def takers(self, request: ImageRequest) -> tuple[str, ...]:
        """Return the providers that can take ``request``, in the order they were given."""
        if request.references or request.seed is not None or request.model_version:
            return self._ask(request)
        shape = (request.model, request.aspect, request.resolution, request.output_format, request.grounding)
        verdict = self._known.get(shape)
        if verdict is None:
            verdict = _Verdict(self._ask(msgspec.structs.replace(request, prompt="x")))
            self._known[shape] = verdict
        prompt = request.prompt
        # Bytes at most, against characters of a prompt that passed: safe whichever of the two a codec counts.
        most_bytes = len(prompt) if prompt.isascii() else 4 * len(prompt)
        if most_bytes <= verdict.longest:
            return verdict.takers
        takers = self._ask(request)
        if takers == verdict.takers:
            verdict.longest = max(verdict.longest, len(prompt))
        return takers

    def reasons(self, request: ImageRequest) -> dict[str, str]:
        """Return what each provider that cannot take ``request`` says."""
        asked = ((provider, codec.problem(request)) for provider, codec in self._codecs.items())
        return {provider: problem for provider, problem in asked if problem}

    def blame(self, request: ImageRequest, *, provider: str = "") -> str:
        """Name the field without which a provider would take ``request``; empty when it is not one field alone."""
        for field, changes in _NEUTRAL:
            tried = msgspec.structs.replace(request, **changes)
            if tried != request:
                takers = self._ask(tried)
                if provider in takers or (takers and not provider):
                    return field
        return ""

    def _ask(self, request: ImageRequest) -> tuple[str, ...]:
        return tuple(provider for provider, codec in self._codecs.items() if codec.problem(request) is None)


class _Verdict:
    """``longest`` is the length in characters of the longest prompt for which ``takers`` held."""

    __slots__ = ("longest", "takers")

    def __init__(self, takers: tuple[str, ...]) -> None:
        self.takers = takers
        self.longest = 1
