"""``bydawn rerun``: everything of a batch again, as a new batch, with the prices of then and now compared."""

from pathlib import Path
from typing import Any

import click

from bydawn.cli.options import ledger_options
from bydawn.cli.run import buying_options, consent_options


@click.command()
@click.argument("target", metavar="BATCH")
@consent_options
@click.option("--dry-run", is_flag=True, help="Only say what differs and what it would cost; sends nothing.")
@click.option("--save", type=click.Path(path_type=Path), metavar="FILE", help="With --dry-run: for --approved FILE.")
@click.option("--new", is_flag=True, help="One more rerun, although there is one.")
@click.option("--name", default="", metavar="NAME", help="Of the new batch; else BATCH-2.")
@click.option("--to", type=click.Path(path_type=Path), metavar="DIR", help="Output folder; else ./NAME.")
@click.option("--provider", "providers", multiple=True, metavar="NAME[,..]", help="Else those of BATCH.")
@click.option("--dedupe", metavar="share|off", help="Buy identical requests once, or each; else as BATCH did.")
@click.option("--skip-invalid", is_flag=True, help="Leave out what cannot be asked for again (rejected.csv).")
@buying_options
@ledger_options
def rerun(target: str, **given: Any) -> int:
    """Everything again as a new batch, with the old pins and prices compared.

    The ledger is all it needs: the same requests, references known by their digests.  The same command again goes on.

    \b
      bydawn rerun products --dry-run
      bydawn rerun products --budget 400
      bydawn rerun products --name products-{date} --provider kie
    """
    from bydawn.request import Request
    from bydawn.rerunning import start

    return start(Request(target=target, **given))
