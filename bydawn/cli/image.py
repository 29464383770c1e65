"""``bydawn image PROMPT``: one image, with everything that a batch has."""

from pathlib import Path

import click

from bydawn.cli.options import json_option, ledger_options
from bydawn.cli.output import json_line, line, talk


@click.command()
@click.argument("prompt", metavar="PROMPT")
@click.option("--ref", "references", multiple=True, metavar="FILE|URL", help="A reference image; several keep order.")
@click.option("-o", "copy_to", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Copy it there.")
@click.option("--provider", metavar="NAME", help="Buy it there; else at the cheapest that takes it.")
@click.option("--model", default="", metavar="NAME", help="nano-banana-2 by default.")
@click.option("--aspect", default="", metavar="W:H", help="1:1 by default, auto with references.")
@click.option("--resolution", default="", metavar="R", help="1K by default.")
@click.option("--again", is_flag=True, help="One more image of a request that was made before.")
@click.option("--to", type=click.Path(path_type=Path), metavar="DIR", help="Folder of the batch; else ./single.")
@click.option("--max-at-risk", metavar="USD", help="The most that may be in doubt at once.")
@click.option("--yes", is_flag=True, help="Agree to the price.")
@click.option("--new-ledger", is_flag=True, help="Off a terminal: begin a new ledger here.")
@click.option("-v", "verbose", count=True, help="Say more; twice: everything.")
@json_option
@ledger_options
def image(
    prompt: str,
    references: tuple[str, ...],
    copy_to: Path | None,
    provider: str | None,
    model: str,
    aspect: str,
    resolution: str,
    again: bool,
    to: Path | None,
    max_at_risk: str | None,
    yes: bool,
    new_ledger: bool,
    verbose: int,
    as_json: bool,
    ledger: Path | None,
    sandbox: bool,
) -> int:
    """One image through the same ledger, as a task of the batch named single.

    The same request again gives the image that is there and buys nothing; --again buys another one.

    \b
      bydawn image "a red enamel mug on slate" -o mug.png
      bydawn image "the same mug, in blue" --ref mug.png --provider together
      bydawn image "a lighthouse at dusk" --aspect 16:9 --resolution 2K --sandbox
    """
    from bydawn.request import Request
    from bydawn.single import NAME, Wanted, make

    wanted = Wanted(
        prompt=prompt,
        images=tuple(_found(reference) for reference in references),
        model=model,
        aspect_ratio=aspect,
        resolution=resolution,
    )
    request = Request(
        target="",
        yes=yes,
        dry_run=False,
        new=False,
        to=to,
        providers=(provider,) if provider else (),
        max_at_risk=max_at_risk,
        new_ledger=new_ledger,
        quiet=not verbose,
        verbose=verbose,
        as_json=as_json,
        ledger=ledger,
        sandbox=sandbox,
    )
    made = make(wanted, request, again=again, copy_to=copy_to)
    if as_json:
        json_line("image", id=made.task, path=None if made.image is None else str(made.image))
    elif made.image is not None:
        line(str(made.image))
        if made.other_type:
            talk(f"{made.image.name} holds a {made.other_type}, as the provider made it")
    else:
        where = " --sandbox" if sandbox else ""
        talk(f"no image: bydawn show {NAME}/{made.task}{where} tells why; if it is held: bydawn resolve {NAME}{where}")
    return made.code if made.image is None else 0


def _found(reference: str) -> str:
    """A path is relative to where the user stands, not to the folder of the batch."""
    return reference if "://" in reference else str(Path(reference).absolute())
