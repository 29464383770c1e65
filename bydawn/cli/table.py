"""The table of commands: group, name, where it is, one line of help.

Data and string work only: ``bydawn --help`` prints from here without importing click or any command, because
people type it while they wait.  Add a command by adding its file and its line; a test compares the lines with
the commands' own help.
"""

# (name, module:attribute, arguments as shown, one line of help)
Entry = tuple[str, str, str, str]

GROUPS: tuple[tuple[str, tuple[Entry, ...]], ...] = (
    (
        "Work",
        (
            (
                "run",
                "bydawn.cli.run:run",
                "INPUT|BATCH",
                "Create the batch or go on with it, until every task is settled",
            ),
            (
                "plan",
                "bydawn.cli.run:plan",
                "INPUT|BATCH",
                "Validate, dedupe, estimate cost, time and disk, per provider and for the mix",
            ),
            (
                "image",
                "bydawn.cli.image:image",
                "PROMPT",
                "One image through the same ledger, as a task of the batch named single",
            ),
            (
                "retry",
                "bydawn.cli.controls:retry",
                "BATCH",
                "Want failed tasks again, priced first; the next (or the present) run buys them",
            ),
            (
                "resolve",
                "bydawn.cli.resolve:resolve",
                "BATCH",
                "Decide about held tasks: nobody could tell whether the provider took their job",
            ),
            (
                "cancel",
                "bydawn.cli.controls:cancel",
                "BATCH",
                "Stop buying, and cancel at the provider where it can be done",
            ),
            (
                "rerun",
                "bydawn.cli.rerun:rerun",
                "BATCH",
                "Everything again as a new batch, with the old pins and prices compared",
            ),
            (
                "status",
                "bydawn.cli.status:status",
                "[BATCH]",
                "How far the open batches are: counts, spend, money at risk, ETA",
            ),
        ),
    ),
    (
        "Look",
        (
            ("tasks", "bydawn.cli.tasks:tasks", "[BATCH]", "List tasks by state, provider or flag"),
            ("show", "bydawn.cli.show:show", "[BATCH/]TASK", "Everything on record about one task"),
            (
                "log",
                "bydawn.cli.log:log",
                "[BATCH]",
                "Batches and runs with times, counts and cost; also of runs that were killed",
            ),
            (
                "serve",
                "bydawn.cli.serve:serve",
                "",
                "Receive the callbacks of providers, and show a dashboard of the open batches",
            ),
        ),
    ),
    (
        "Prove",
        (
            (
                "verify",
                "bydawn.cli.verify:verify",
                "[BATCH]",
                "Check the ledger against itself and against the image files",
            ),
            (
                "replay",
                "bydawn.cli.replay:replay",
                "BATCH",
                "The state of a batch at a moment, or between two, from events alone",
            ),
            (
                "torture",
                "bydawn.cli.torture:torture",
                "INPUT",
                "Kill real runs against the sandbox, at every fault point and at random, and print the bill",
            ),
            ("export", "bydawn.cli.export:export", "[BATCH]", "One line per task as JSONL or CSV"),
        ),
    ),
    (
        "Keep",
        (
            (
                "erase",
                "bydawn.cli.erase:erase",
                "[BATCH/]TASK...",
                "Erase the texts of tasks for good: prompt, references, answers",
            ),
            (
                "ledger",
                "bydawn.cli.ledger:ledger",
                "backup|takeover",
                "Back the ledger up while it is in use; go on with a copy, or in another place",
            ),
        ),
    ),
    (
        "Set up",
        (
            (
                "providers",
                "bydawn.cli.providers:providers",
                "[list|check]",
                "What each provider can do; whether your keys work",
            ),
            ("doctor", "bydawn.cli.doctor:doctor", "", "Check this machine: Python, SQLite, disk, clock, keys"),
            ("explain", "bydawn.cli.explain:explain", "CODE", "What an error code means and what to do"),
        ),
    ),
    (
        "Practise",
        (("sandbox", "bydawn.cli.sandbox:sandbox", "", "Serve the provider emulators: no keys, no charge"),),
    ),
)

# What a person wants, and the command that does it; shown as far as the commands are in the table.
WAYS: tuple[tuple[str, str], ...] = (
    ("not bought yet", "run"),
    ("failed or rejected", "retry"),
    ("doubtful", "resolve"),
    ("everything again", "rerun"),
)


def entries() -> dict[str, Entry]:
    return {entry[0]: entry for _, group in GROUPS for entry in group}


def help_text() -> str:
    """Return what ``bydawn --help`` prints."""
    known = entries()
    width = max(len(f"{name} {arguments}") for name, _, arguments, _ in known.values())
    lines = [
        "Usage: bydawn COMMAND [ARGUMENTS]",
        "",
        "Buys large batches of images overnight from many providers, survives kill -9, and never",
        "silently pays twice.",
    ]
    for title, group in GROUPS:
        lines += ["", title]
        lines += [f"  {f'{name} {arguments}':<{width}}  {says}" for name, _, arguments, says in group]
    ways = [f"{wish} -> {command}" for wish, command in WAYS if command in known]
    if ways:
        lines += ["", "; ".join(ways)]
    lines += ["", "bydawn COMMAND --help tells more; bydawn --version; bydawn explain CODE for any error."]
    return "\n".join(lines)
