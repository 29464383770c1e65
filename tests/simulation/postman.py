"""Delivers the callbacks of a simulated world: what a receiver would leave in the inbox, without sockets.

It stands for ``bydawn serve``, which outlives the runs: no crash of theirs stops it.  No secrets are set, so that the
token alone guards the gate, and every forgery with a right address gets as far as it can.
"""

import hashlib
import hmac
from pathlib import Path
from urllib.parse import urlsplit

from adapters import registry
from adapters.base import Codec
from adapters.sandbox.house import House
from runtime.callbacks import Gate
from runtime.inbox import Hint, leave_hint

PUBLIC_URL = "https://hooks.test"


def keyed(text: str) -> str:
    return hmac.digest(b"the ledger's secret", text.encode(), hashlib.sha256).hex()[:32]


def _codec_of(account: str) -> Codec:
    """The codec of an account, which is named like its provider, perhaps with a number behind a full stop."""
    return registry.codec(account.partition(".")[0])


class Postman:
    """``delivered`` counts what passed the gate, ``turned_away`` what did not."""

    def __init__(self, house: House, inbox: Path) -> None:
        self._house = house
        self._inbox = inbox
        self._gate = Gate(keyed=keyed, codec_of=_codec_of, secrets={})
        self.delivered = 0
        self.turned_away = 0

    def deliver(self, now_us: int) -> None:
        """Send every callback that is due."""
        for hook in self._house.due_webhooks(now_us):
            named = self._gate.named(urlsplit(hook.url).path)
            headers = {name.lower(): value for name, value in hook.headers.items()}
            hint = self._gate.hint(named, headers, hook.body, now_s=now_us / 1e6) if named else None
            if isinstance(hint, Hint):
                leave_hint(self._inbox, hint)
                self.delivered += 1
            else:
                self.turned_away += 1
            if not hook.extra:
                self._house.webhook_sent(hook, now_us, taken=True)
