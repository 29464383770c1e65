"""Acme as a provider of bydawn."""

from adapters.registry import Entry

# Text, not objects: nothing is imported before somebody buys from Acme, or practises.
PROVIDER = Entry(
    codec="acme_bydawn.codec:ACME",
    emulator="acme_bydawn.sandbox:AcmeEmulator",
    prices="acme_bydawn.codec:PRICES",
)
