"""What tells one account from another one of the same name (REC-9)."""

import msgspec

from adapters.base import Secret
from tests.runtime.fakes import Bench


def test_another_key_or_another_place_is_another_account() -> None:
    """Behind another base URL "not found" proves nothing about jobs that were made at this one."""
    account = Bench().account
    there = msgspec.structs.replace(account, base_url="https://gateway.example/toapis")
    identities = {
        account.identity,
        there.identity,
        msgspec.structs.replace(there, base_url="https://other.example").identity,
        msgspec.structs.replace(account, key=Secret("another")).identity,
    }
    assert len(identities) == 4


def test_a_server_on_this_machine_is_the_same_account_at_any_port() -> None:
    account = msgspec.structs.replace(Bench().account, loopback=True, base_url="http://127.0.0.1:8700/kie")
    assert account.identity == msgspec.structs.replace(account, base_url="http://127.0.0.1:9100/kie").identity
