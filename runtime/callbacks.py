"""Callbacks of providers: the address that each attempt is given, and the gate that judges what arrives there.

    {webhook url}/callback/{account}/{batch}-{n}-{attempt}/{token}

The token is computed from the ledger's secret and the attempt, so nobody needs to store it and nobody else can make
one (SEC-1).  What passes the gate is no more than a hint: *this attempt may have news, and its job may be that one*.
It changes nothing before an authenticated read of the job says the same (REC-7), so of a callback's body only the id
of the job is kept.  Pure: time comes in, nothing is written here.
"""

import hmac
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias
from urllib.parse import quote, unquote

import msgspec

from adapters.base import Callbacks, Codec, MalformedReply, Secret
from adapters.reading import is_job_id
from runtime.inbox import Hint

MAX_BODY = 512 << 10  # the largest are Replicate's, which repeat the prompt; images come as links
_PATH = re.compile(r"(?:.*)/callback/([^/]{1,300})/(\d{1,9})-(\d{1,11})-(\d{1,6})/([0-9a-f]{32})", re.DOTALL)

Keyed: TypeAlias = Callable[[str], str]


class Named(msgspec.Struct, frozen=True):
    """The attempt that a path names, with a token that proves that we gave the address away."""

    account: str
    batch: int
    n: int
    attempt: int

    @property
    def text(self) -> str:
        """For logs: the path without its token."""
        return f"{self.account}/{self.batch}-{self.n}-{self.attempt}"


class Addresses:
    """Gives every attempt an address of its own."""

    def __init__(self, webhook_url: str, keyed: Keyed) -> None:
        """``keyed`` digests a text with the ledger's secret (32 hex digits)."""
        self._base = webhook_url.rstrip("/")
        self._keyed = keyed

    def url(self, account: str, batch: int, n: int, attempt: int) -> str:
        named = Named(account, batch, n, attempt)
        place = f"{quote(account, safe='')}/{batch}-{n}-{attempt}"
        return f"{self._base}/callback/{place}/{_token(self._keyed, named)}"


def without_token(text: bytes, url: str) -> bytes:
    """Blank the token of an address wherever a provider repeats it: its words end up in records and logs (SEC-1)."""
    token = url.rpartition("/")[2].encode()
    return text.replace(token, b"-" * len(token)) if token else text


class Gate:
    """Tells callbacks of our providers from everything else that arrives at a public address.

    Args:
        keyed: digests a text with the ledger's secret.
        codec_of: gives the codec of an account that the ledger knows, None for any other name.
        secrets: by provider, what its callbacks are signed with; several after a rotation.  Where there are none, the
            token alone lets a callback through.
    """

    def __init__(
        self,
        *,
        keyed: Keyed,
        codec_of: Callable[[str], Codec | None],
        secrets: Mapping[str, Sequence[Secret]],
    ) -> None:
        self._keyed = keyed
        self._codec_of = codec_of
        self._secrets = secrets

    def named(self, path: str) -> Named | None:
        """Find the attempt of a path as it came over the wire; None unless its token is ours.

        A prefix is ignored: a proxy in front of us may strip it or not.
        """
        found = _PATH.fullmatch(path)
        if found is None:
            return None
        account, batch, n, attempt, token = found.groups()
        named = Named(unquote(account), int(batch), int(n), int(attempt))
        return named if hmac.compare_digest(token, _token(self._keyed, named)) else None

    def hint(self, named: Named, headers: Mapping[str, str], body: bytes, *, now_s: float) -> Hint | str:
        """Judge a callback whose path was good: the hint, or why it is none (for the log, never for the sender).

        Header names are lower case.
        """
        codec = self._codec_of(named.account)
        if not isinstance(codec, Callbacks):
            return "the ledger knows no such account that calls back"
        secrets = self._secrets.get(codec.capabilities.provider, ())
        if secrets and not codec.verify_callback(headers, body, secrets=secrets, now_s=now_s):
            return "the signature is not by any secret that is set, or too old"
        try:
            job = codec.read_callback(body)
        except MalformedReply as exc:
            return f"it cannot be read: {exc}"
        if not is_job_id(job):
            return "it names no usable job"
        return Hint(named.account, named.batch, named.n, named.attempt, job)


def _token(keyed: Keyed, named: Named) -> str:
    return keyed(f"callback/{named.text}")
