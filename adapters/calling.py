"""How codecs build their calls in the same way: the address, and the headers where the key is a bearer token."""

from urllib.parse import urlsplit

from adapters.base import Context


def address(ctx: Context, base_url: str, path: str) -> str:
    """Put an address together; a base URL of the user's replaces the provider's, whatever host that is."""
    return (ctx.base_url or base_url).rstrip("/") + path


def is_elsewhere(url: str, ctx: Context, base_url: str) -> bool:
    """Tell whether an address that was told leads to another server than the one that we ask anyway, which may be a
    gateway of the user's own."""
    return urlsplit(url)[:2] != urlsplit(ctx.base_url or base_url)[:2]


def bearer(ctx: Context) -> dict[str, str]:
    """The headers of a call with a bearer token, which wants JSON back."""
    return {"Authorization": f"Bearer {ctx.key.reveal()}", "Accept": "application/json"}
