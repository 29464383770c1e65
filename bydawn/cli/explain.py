"""``bydawn explain``: what an error code means and what to do."""

import click

from bydawn.cli.output import json_line, line, pairs, strong, table
from bydawn.errors import UserError
from bydawn.explain import EXPLANATIONS


@click.command()
@click.argument("code", required=False)
@click.option("--json", "as_json", is_flag=True, help="One JSON object per code.")
def explain(code: str | None, as_json: bool) -> None:
    """What an error code means and what to do."""
    chosen = sorted(EXPLANATIONS) if code is None else [_named(code)]
    if as_json:
        for name in chosen:
            json_line("explanation", code=name, **EXPLANATIONS[name]._asdict())
    elif code is None:
        table(("code", "exit", "what"), [(c, EXPLANATIONS[c].exit_code, EXPLANATIONS[c].what) for c in chosen])
    else:
        told = EXPLANATIONS[chosen[0]]
        line(strong(f"{chosen[0]}: {told.what}"))
        pairs([("why", told.why), ("fix", told.fix), ("exit code", str(told.exit_code))])


def _named(code: str) -> str:
    """Accept ``bd-101`` and ``101`` too."""
    digits = code.upper().removeprefix("BD-").removeprefix("BD")
    name = f"BD-{digits}"
    if name not in EXPLANATIONS:
        raise UserError("BD-107", f"there is no error code {code}", fix="bydawn explain lists all codes")
    return name
