"""``bydawn sandbox``: serve the provider emulators until Ctrl-C."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bydawn.cli.output import json_line, line, talk
from bydawn.errors import UserError
from bydawn.selection import ledger_path

if TYPE_CHECKING:
    from adapters.sandbox.server import SandboxSettings

KEY = "sandbox-practice"


@click.command()
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="0 takes any free one and prints it.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--latency", type=click.FloatRange(min=0), default=2.0, show_default=True, help="Median seconds per image."
)
@click.option("--chaos", default="none", show_default=True, help="Faults: none, flaky, storm, or a TOML file.")
@click.option(
    "--seed", type=int, default=0, show_default=True, help="Of faults and latencies; the same gives the same."
)
@click.option(
    "--rate-factor", type=click.FloatRange(min=0.01), default=5.0, show_default=True, help="1 = documented limits."
)
@click.option(
    "--price-factor", type=click.FloatRange(min=0.0), default=1.0, show_default=True, help="1 = published prices."
)
@click.option(
    "--webhook-key",
    metavar="whsec_...",
    default="",
    help="Sign callbacks with this; its secrets are printed, too. Better: BYDAWN_SANDBOX_WEBHOOK_KEY[_FILE].",
)
@click.option(
    "--dir", "directory", type=click.Path(file_okay=False, path_type=Path), help="Where its jobs and its bill are kept."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of shell lines.")
def sandbox(
    port: int,
    host: str,
    latency: float,
    chaos: str,
    seed: int,
    rate_factor: float,
    price_factor: float,
    webhook_key: str,
    directory: Path | None,
    as_json: bool,
) -> None:
    """Serve the provider emulators: no keys, no charge."""
    from adapters.sandbox.faults import load_profile
    from adapters.sandbox.server import WEBHOOK_KEY_ENV, SandboxSettings, webhook_key_of

    try:
        profile = load_profile(chaos)
    except (ValueError, OSError) as error:
        raise UserError("BD-020", f"--chaos {chaos}: {error}", fix="none, flaky, storm, or a TOML file") from error
    try:
        signed_with = webhook_key or webhook_key_of(os.environ)
    except (ValueError, OSError) as error:
        raise UserError("BD-020", f"the key cannot be read: {error}", where=f"{WEBHOOK_KEY_ENV}_FILE") from error
    settings = SandboxSettings(
        directory=directory or ledger_path(None, sandbox=True).with_suffix(".db.sandbox"),
        host=host,
        port=port,
        latency_s=latency,
        rate_factor=rate_factor,
        price_factor=price_factor,
        chaos=profile,
        seed=seed,
        webhook_key=signed_with,
    )
    serve_until_stopped(settings, as_json=as_json)


def serve_until_stopped(settings: "SandboxSettings", *, as_json: bool) -> None:
    import trio

    from adapters.sandbox.server import SandboxBusy, serve

    def started(port: int) -> None:
        url = f"http://{settings.host}:{port}"
        variables = environment(url, settings.webhook_key)
        if as_json:
            json_line("sandbox", url=url, directory=str(settings.directory), environment=variables)
        else:
            line(f"# sandbox at {url}; jobs and bill in {settings.directory}")
            for name, value in variables.items():
                line(f"export {name}={value}")
        talk("Ctrl-C stops it.  `bydawn run INPUT --sandbox` needs none of these lines: it starts its own.")

    try:
        trio.run(serve, settings, started)
    except SandboxBusy as error:
        raise UserError(
            "BD-106",
            "another sandbox works in this directory",
            where=str(settings.directory),
            why="each keeps its own jobs and bill",
            fix="--dir DIR for another one, or end that one",
        ) from error
    except OSError as error:
        raise UserError(
            "BD-106",
            f"the sandbox cannot listen on {settings.host}:{settings.port}: {error.strerror}",
            fix="leave --port out: a free one is taken and printed",
        ) from error


def environment(url: str, webhook_key: str = "") -> dict[str, str]:
    """The variables that make bydawn, or the provider's own client, buy here, and let it check who calls back."""
    from adapters.registry import codec, entries
    from bydawn.webhooks import secret_variable

    lines = {"BYDAWN_SANDBOX_URL": url}
    for provider in entries():
        lines[f"BYDAWN_{provider.upper().replace('-', '_')}_BASE_URL"] = f"{url}/{provider}"
        record = codec(provider).capabilities
        lines[record.key_env] = KEY
        if webhook_key and record.callback is not None and record.callback.value != "unsigned":
            lines[secret_variable(provider)] = webhook_key
    return lines
