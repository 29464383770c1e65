"""What all peers have in common: the prompts, the provider's official client, and where images are saved.

A purchase has two halves, so that those who can remember something between them have something to remember: ``order``
is the paid request, ``collect`` waits for the image and saves it.  At a synchronous provider the answer to the paid
request already says where the image is.

Peers run in a Python of their own (``requirements.txt``): nothing of bydawn is imported here.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import httpx

AT_ONCE = 8
ATTEMPTS = 5  # for those that try again


class Shop:
    """One run: ``folder`` has the prompts and gets the images."""

    def __init__(self, folder: Path, provider: str) -> None:
        self.folder = folder
        self.provider = provider
        self.images = folder / "images"

    @cached_property
    def prompts(self) -> Sequence[str]:
        prompts: list[str] = json.loads((self.folder / "prompts.json").read_text())
        return prompts

    def missing(self) -> list[int]:
        """Numbers of the prompts that have no image yet."""
        return [number for number in range(len(self.prompts)) if not self.image(number).exists()]

    def image(self, number: int) -> Path:
        return self.images / f"{number}.jpg"

    def buy(self, number: int) -> None:
        self.collect(number, self.order(number))

    def order(self, number: int) -> str:
        """Send the paid request; gives the job's id, or the image's address where there is no job."""
        prompt = self.prompts[number]
        return _TO_ORDER[self.provider](prompt)

    def collect(self, number: int, order: str) -> None:
        """Wait for what was ordered, and save it."""
        reply = httpx.get(_TO_FIND[self.provider](order))
        reply.raise_for_status()
        half = self.image(number).with_suffix(".part")
        half.write_bytes(reply.content)
        half.replace(self.image(number))


# --- the providers, by their official clients with their defaults -------------------------------------------


def _order_at_replicate(prompt: str) -> str:
    import replicate

    return replicate.models.predictions.create(
        "google/nano-banana-2", input={"prompt": prompt, "aspect_ratio": "1:1", "resolution": "1K"}
    ).id


def _find_at_replicate(order: str) -> str:
    import replicate

    prediction = replicate.predictions.get(order)
    prediction.wait()
    if prediction.status != "succeeded":
        raise RuntimeError(f"{order}: {prediction.status}, {prediction.error}")
    return str(prediction.output)


def _order_at_together(prompt: str) -> str:
    from together import Together

    with Together() as client:
        answer = client.images.generate(
            model="google/flash-image-3.1", prompt=prompt, width=1024, height=1024, n=1, response_format="url"
        )
    return str(getattr(answer.data[0], "url"))  # noqa: B009 (of a union whose other member has none)


_TO_ORDER: Mapping[str, Callable[[str], str]] = {"replicate": _order_at_replicate, "together": _order_at_together}
_TO_FIND: Mapping[str, Callable[[str], str]] = {"replicate": _find_at_replicate, "together": str}


# --- how the torture starts a peer --------------------------------------------------------------------------


def opened() -> Shop:
    """The shop of this process, as the torture said it: for modules that others import."""
    return Shop(Path(os.environ["PEER_FOLDER"]), os.environ["PEER_PROVIDER"])


def play(
    *, work: Callable[[Shop], None], believe: Callable[[Shop], dict[str, int]], prepare: Callable[[Shop], None] | None
) -> None:
    """Do what the torture asks for: ``prepare`` before each life, ``work`` (and be killed), ``believe`` at the end."""
    parser = argparse.ArgumentParser()
    parser.add_argument("part", choices=("prepare", "work", "believe"))
    part = parser.parse_args().part
    shop = opened()
    if part == "work":
        work(shop)
    elif part == "believe":
        print(json.dumps(believe(shop)))
    elif prepare:
        prepare(shop)
