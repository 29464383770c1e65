"""Local reference files of a batch: what a plan says of them, and whether they still lie where they were."""

from collections.abc import Sequence
from pathlib import Path

from adapters.references import local_file
from bydawn.cli.formats import count, counted
from bydawn.inputs import Checked
from ledger.reader import Reader
from runtime.accounts import Account
from runtime.requests import decode_request

_LOOKED_AT = 1000  # tasks


def file_lines(checked: Checked, accounts: Sequence[Account]) -> tuple[str, ...]:
    """How many files there are and what each provider is given of them; nothing where there are none."""
    if not checked.local_files:
        return ()
    lines = [f"{counted(checked.local_files, 'local reference file')}, {count(checked.local_bytes)} bytes"]
    for provider, codec in {account.provider: account.codec for account in accounts}.items():
        taken = codec.capabilities.references.value
        if taken.files == "upload":
            lines.append(f"  {provider}: uploaded once each, which is free")
        elif taken.files == "inline":
            lines.append(f"  {provider}: sent inside each request")
        else:
            lines.append(f"  {provider}: takes none, only URLs")
    return tuple(lines)


def files_are_missing(reader: Reader, batch: int) -> bool:
    """Whether a file of the next tasks that may be bought is not where it was at import."""
    paths: set[str] = set()
    for task in reader.queued(batch, limit=_LOOKED_AT):
        if task.request is not None and task.state.queued is not None and task.state.queued.references:
            references = decode_request(task.request).request.references
            paths.update(file.path for each in references if (file := local_file(each)) is not None)
    return any(not Path(path).is_file() for path in paths)
