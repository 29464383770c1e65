"""What each error code means, why it happens and what to do.

The codes are stable: a script may compare them and a search finds them.  ``bydawn explain CODE`` prints an entry, and
``docs/reference/errors.md`` lists them all; a test holds the three together.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple


class Explanation(NamedTuple):
    """``exit_code`` is what a command that ends with this trouble returns."""

    what: str
    why: str
    fix: str
    exit_code: int = 2


_INPUT: dict[str, Explanation] = {
    "BD-010": Explanation(
        "The input cannot be opened.",
        "The file does not exist, is a directory, or may not be read by you.",
        "Check the path; `-` reads standard input.",
    ),
    "BD-011": Explanation(
        "The format of the input is not known.",
        "bydawn tells the format by the file's ending and its first bytes: CSV, TSV (also .gz), JSONL, JSON.",
        "Save the table as CSV or JSONL, or give the file its usual ending.",
    ),
    "BD-012": Explanation(
        "The bytes of the input are not what they should be.",
        "Text in another encoding than UTF-8, a damaged .gz, or a file that was cut off.",
        "Name the encoding with --encoding, or export the table again.",
    ),
    "BD-013": Explanation(
        "The table has no usable header.",
        "It is empty, or two columns have the same name, so that a name would not say which one is meant.",
        "Give every column a name of its own in the first line.",
    ),
    "BD-014": Explanation(
        "A --map names a field or a column that does not exist.",
        "The left side must be a field (prompt, id, aspect_ratio, ...), the right side a column or a template.",
        "Compare with the columns that the message lists; case counts.",
    ),
    "BD-015": Explanation(
        "No column gives the prompt.",
        "There is no column named `prompt`, and bydawn does not guess with your money.",
        "--map prompt=COLUMN, or a template: --map prompt='Studio photo of {Title}'.",
    ),
    "BD-016": Explanation(
        "Rows of the input are not usable; nothing was sent.",
        "Each bad row is listed with its column and reason, here and in rejected.csv.",
        "Correct those rows, or go on without them: --skip-invalid.",
    ),
    "BD-017": Explanation(
        "The input changed while it was being read.",
        "The file is read twice, to check it all before anything is recorded, and the two did not agree.",
        "Wait until whatever writes the file is done, then run the same command again.",
    ),
    "BD-018": Explanation(
        "No chosen provider takes what the options ask for.",
        "The model, aspect or resolution is not offered by any of them, whatever the row says.",
        "Choose another value or more providers; `bydawn providers` shows what each takes.",
    ),
    "BD-020": Explanation(
        "An option has a value that cannot be read.",
        "Money is written like 250 or 0.75, durations like 90s, 20m or 8h, times like 07:00.",
        "Correct the value; the command's --help shows the form.",
    ),
    "BD-021": Explanation(
        "The name template does not fit.",
        "It names a column that is not there, or would give two tasks the same file name.",
        "Put into --name-template what tells the tasks apart: {row}, {aspect}, {resolution}, {variant}, or a column.",
    ),
}

_SETTINGS: dict[str, Explanation] = {
    "BD-030": Explanation(
        "A settings file cannot be read, or holds a key that bydawn does not know.",
        "Unknown keys are refused, so that a misspelt limit is not silently no limit.",
        "Correct the line that the message names.",
    ),
    "BD-031": Explanation(
        "There is no ledger here, and off a terminal a new one is made only when asked for.",
        "A script started in the wrong folder would begin the batch again from nothing, and pay again.",
        "--new-ledger the first time, or --ledger FILE, or keep a bydawn.toml in the folder.",
    ),
    "BD-032": Explanation(
        "The key file of the ledger is damaged.",
        "FILE.db.key holds the secret by which accounts and machines are told apart; it is cut short or was replaced.",
        "Put it back from a backup; or remove it: then take the ledger over, and confirm the accounts anew.",
        12,
    ),
    "BD-040": Explanation(
        "A provider or account of this name is not known.",
        "It is neither a provider nor an account of your settings.",
        "`bydawn providers` lists both.",
    ),
    "BD-041": Explanation(
        "Keys of chosen accounts are missing.",
        "Neither the environment variable, nor its _FILE form, nor the settings give one.",
        "Set the variable that the message names, or leave that provider out with --provider.  To practise: --sandbox.",
        4,
    ),
    "BD-042": Explanation(
        "A base URL is not usable.",
        "BYDAWN_<PROVIDER>_BASE_URL must be https, or plain http to this machine.",
        "Correct the variable, or unset it to reach the provider itself.",
    ),
    "BD-043": Explanation(
        "A key cannot be read, or cannot be sent in a header.",
        "The key file is missing or not readable, or the key holds spaces, line ends or other signs no key has.",
        "Copy the key again; a trailing line end in a key file is fine.",
        4,
    ),
    "BD-044": Explanation(
        "An account cannot buy: its key is rejected, or it has no credit left.",
        "Asked before anything else is done, by a call that costs nothing.",
        "Correct the key or top the account up, or leave it out with --provider.  `bydawn providers check` tells more.",
        4,
    ),
    "BD-045": Explanation(
        "Attempts are open at an account that this run does not use.",
        "What was bought there would not be collected, and results expire.",
        "Add the account to --provider, and set its key.",
        4,
    ),
    "BD-046": Explanation(
        "Providers cannot be told this webhook URL.",
        "Anybody on the way could read and send callbacks over plain http; a query or login in it would get lost.",
        "An https address whose proxy passes requests on to this machine; plain http to this machine for practice.",
    ),
    "BD-050": Explanation(
        "A price is not known, and what has no price is not bought.",
        "A price belongs to one provider, model and resolution, and is never lent to another.",
        "Set it in the [prices] of bydawn.toml, or choose another provider, model or resolution.",
    ),
}

_RUNNING: dict[str, Explanation] = {
    "BD-076": Explanation(
        "A saved plan cannot be written or read.",
        "It is the file of `bydawn plan --save`, and of nothing else.",
        "Make it anew: `bydawn plan INPUT --save FILE`.",
    ),
    "BD-077": Explanation(
        "The run is not the one that was approved.",
        "The input, the accounts, the prices or the worst cost differ from the saved plan by more than --tolerance.",
        "Have the new plan approved: `bydawn plan INPUT --save FILE`.",
    ),
    "BD-113": Explanation(
        "This ledger is a copy, was restored, or is on another machine: nothing is bought with it yet.",
        "Two copies that both go on would buy everything twice, and neither can see the other.",
        "If no other copy goes on: `bydawn ledger takeover`.  Else use the other one.  All reading commands work.",
    ),
    "BD-114": Explanation(
        "Taking a ledger over needs your word.",
        "Nobody but you can know that no other copy of it goes on; off a terminal bydawn cannot ask.",
        "`bydawn ledger takeover --yes`",
    ),
    "BD-115": Explanation(
        "There is a file where the backup would go.",
        "It may be the only copy of something; nothing is overwritten without being told.",
        "Choose another name, or --force.",
    ),
    "BD-111": Explanation(
        "The run that holds the ledger has not taken a control message yet.",
        "It may be busy, or stopped.",
        "Nothing is lost: the message stays in the ledger's inbox and is taken at the latest when the next run starts.",
        11,
    ),
    "BD-060": Explanation(
        "No sandbox answers at the address in BYDAWN_SANDBOX_URL.",
        "The variable names one that was ended, or another program has its port.",
        "Start it with `bydawn sandbox`, or unset the variable: then `run --sandbox` starts one by itself.",
        6,
    ),
    "BD-061": Explanation(
        "The sandbox could not be started.",
        "Its log, named in the message, says more.",
        "Try it by hand: `bydawn sandbox`.",
        6,
    ),
    "BD-070": Explanation(
        "Known tasks would now want another image.",
        "The input or the options changed what defines their requests; what was bought for them may be of no use then.",
        "--on-change keep leaves them as they were; or make it a batch of its own: --name NEW.",
    ),
    "BD-071": Explanation(
        "Many tasks ask for the very same image.",
        "More than 2 % of the rows are equal after mapping: usually the mapping forgot a column.",
        "Correct --map; or --dedupe share buys each once and shares it, --dedupe off buys every one.",
    ),
    "BD-072": Explanation(
        "Buying needs your consent.",
        "Off a terminal bydawn cannot ask, and nothing is spent without leave.",
        "--budget USD (the most the batch may ever spend), or --yes.  `bydawn plan` shows what it would cost.",
    ),
    "BD-073": Explanation(
        "Nothing was bought: you said no.",
        "The plan was shown and declined.",
        "Run the same command again to buy; other options change the plan.",
    ),
    "BD-074": Explanation(
        "A practice batch cannot be continued as a real one, nor the other way round.",
        "They live in ledgers of their own, so that emulated images never pass for bought ones.",
        "Add or leave out --sandbox, as the message says.",
    ),
    "BD-075": Explanation(
        "The output folder belongs to another batch.",
        "Its file .bydawn names a batch that this ledger does not know by this name.",
        "--to another folder; or use the ledger that made it: --ledger FILE.",
    ),
    "BD-078": Explanation(
        "Tasks of a batch cannot be asked for again as they were.",
        "A reference file is gone or changed, no chosen provider takes the request any more, or its text was erased.",
        "Put the files back and choose providers that take it; or leave such tasks out: --skip-invalid.",
    ),
    "BD-079": Explanation(
        "The name of a rerun is that of another batch.",
        "`rerun BATCH --name NAME` goes on with NAME where that was made from BATCH, and with nothing else.",
        "Give another --name, or none.",
    ),
    "BD-081": Explanation(
        "Nothing of this batch can be bought yet.",
        "Bringing its tasks in was cut short or refused, and only a whole table is bought.",
        "Give the command that brings them in again: it goes on where it stopped.",
    ),
    "BD-080": Explanation(
        "The disk is full or cannot be written.",
        "Buying stopped while everything in flight still fitted; what was paid for is on record.",
        "Free some space and run the same command again: it fetches what is paid and goes on.",
        7,
    ),
}

_COMMANDS: dict[str, Explanation] = {
    "BD-082": Explanation(
        "The folder of a batch's results is not there, and paid images may lie in it.",
        "Some providers send the image inside the answer; it waits in that folder until it is recorded. To go on "
        "without it would count such images as lost or in doubt.",
        "Mount the disk or put the folder back; name it with --to if it is elsewhere; if gone, make an empty one.",
        7,
    ),
    "BD-100": Explanation(
        "The command line cannot be understood.",
        "An option or a command that does not exist, or an argument too many or too few.",
        "bydawn --help, or the command's own --help.",
    ),
    "BD-101": Explanation(
        "There is no batch of this name.",
        "A batch is known by its name: --name, else the input's file name without its ending.",
        "`bydawn log` lists the batches of this ledger; --ledger FILE looks into another.",
        10,
    ),
    "BD-102": Explanation(
        "The batch has no such task.",
        "A task's id is the row's id, with aspect, resolution, model or variant where several were asked for.",
        "`bydawn tasks BATCH` lists the ids; `#17` is the seventeenth task of the import.",
        10,
    ),
    "BD-103": Explanation(
        "No batch has been started yet.",
        "The ledger is there and empty.",
        "bydawn run INPUT",
        10,
    ),
    "BD-104": Explanation(
        "The output file cannot be written.",
        "Its folder does not exist, may not be written, or the disk is full.",
        "Choose another place with -o, or leave -o out and redirect standard output.",
        7,
    ),
    "BD-105": Explanation(
        "A key was rejected by its provider.",
        "The provider answered the cheap authenticated call with a refusal: the key is wrong, revoked or not enabled.",
        "Copy the key from the provider's console again, then `bydawn providers check`.",
        4,
    ),
    "BD-106": Explanation(
        "The sandbox cannot listen on this port.",
        "Another program has it, perhaps another sandbox.",
        "Leave --port out (a free one is taken and printed), or end the other program.",
    ),
    "BD-112": Explanation(
        "bydawn cannot listen at this address, for callbacks or for the dashboard.",
        "Another program has it, or it is no address of this machine.",
        "Give another one with --webhook-listen (or `serve --port`), and let the webhook URL lead there; "
        "for the dashboard with `serve --dashboard-port`.",
    ),
    "BD-116": Explanation(
        "A task cannot be erased yet.",
        "A purchase of it, or of a task that shares it, is open or in doubt: its text finds it again after a crash.",
        "Let the run finish, or stop it with bydawn cancel; decide held tasks with bydawn resolve. Then erase.",
    ),
    "BD-117": Explanation(
        "Erasing needs your consent.",
        "It cannot be undone, and this is not a terminal, so bydawn cannot ask.",
        "Read what would go, then give --yes.",
    ),
    "BD-118": Explanation(
        "Open purchases were made with another key of the account, or at another base URL.",
        "The new key may be another account's: that it sees no job of them proves nothing, so nothing is concluded. "
        "A run notices by itself that the account is the same when the new key reads a job made with the old one.",
        "Was only the key replaced, say so: bydawn providers confirm ACCOUNT. Else set the old key or base URL again, "
        "or decide with bydawn resolve BATCH.",
    ),
    "BD-119": Explanation(
        "There is no other key of this account to be confirmed.",
        "Everything was bought with this key or one known to be of the same account, at another base URL, or never.",
        "`bydawn show TASK` tells why a task is held. What was bought at another base URL is collected there.",
    ),
    "BD-120": Explanation(
        "A job cannot be adopted for this task.",
        "It belongs to another purchase, its account does not show it, or it was made for something else: a stranger's "
        "image would stand under the task's name. Nothing was adopted, for no task of the command.",
        "`bydawn resolve BATCH` lists the jobs that could be it.",
    ),
    "BD-121": Explanation(
        "A job that was to be adopted could not be looked at.",
        "Only the account's own key can tell whether the job is there; it is missing, or the provider did not answer.",
        "Set the key, or try again later; nothing was adopted, and the tasks stay held.",
        6,
    ),
    "BD-107": Explanation(
        "There is no error code of this name.",
        "Codes look like BD-101.",
        "`bydawn explain` without a code lists them all.",
    ),
    "BD-108": Explanation(
        "Something on this machine would break a run.",
        "`bydawn doctor` found at least one thing that must be put right first; it stands in its list.",
        "Do what the line says, then run `bydawn doctor` again.",
    ),
    "BD-900": Explanation(
        "Internal error: a fault of bydawn, not of your input.",
        "Whatever was recorded is safe; what was in flight is looked up before anything is bought again.",
        "Run the same command again.  BYDAWN_DEBUG=1 shows the trace for a report.",
        1,
    ),
}

_LEDGER: dict[str, Explanation] = {
    "BD-500": Explanation(
        "The ledger could not do what was asked.",
        "The message names the cause.",
        "bydawn verify; bydawn doctor",
        1,
    ),
    "BD-510": Explanation(
        "There is no ledger at this place.",
        "No run has been started here, or the file was moved.",
        "Go to the batch's folder, or name the file: --ledger FILE.",
        10,
    ),
    "BD-511": Explanation(
        "Another process has this ledger open for writing.",
        "A run is going on.  Only one process writes; reading commands work all the time.",
        "`bydawn status` shows the run; wait for it, or stop it with Ctrl-C there.",
        11,
    ),
    "BD-512": Explanation(
        "The file is not a ledger, or its content contradicts itself.",
        "It was changed by something else, cut off while being copied, or the disk is failing.",
        "`bydawn verify` names the place.  Restore the latest copy; keep the damaged file for the provider's bill.",
        12,
    ),
    "BD-513": Explanation(
        "The ledger was written by a newer bydawn.",
        "An older program could misread what it does not know, and is not allowed to write.",
        "Upgrade bydawn here, or use the machine that has the newer one.",
        12,
    ),
    "BD-514": Explanation(
        "The ledger lies where SQLite cannot keep its promises.",
        "On network file systems locks and syncs are not reliable: a crash could lose what was bought.",
        "Keep the ledger on a local disk (--ledger FILE); the images may lie elsewhere (--to DIR).",
    ),
    "BD-515": Explanation(
        "A newer process has taken this ledger over.",
        "This one was paused or cut off for long, and another run was started meanwhile.",
        "Nothing to do: the newer run goes on.  `bydawn status` shows it.",
        11,
    ),
    "BD-516": Explanation(
        "The disk refused a commit; nothing more was sent.",
        "An I/O error, or the file system went read-only.",
        "`bydawn doctor` tests the disk.  Then run the same command again: it goes on where it stopped.",
        7,
    ),
    "BD-517": Explanation(
        "No space left for the ledger; nothing more was sent.",
        "The disk, or your quota on it, is full.",
        "Free some space and run the same command again: nothing paid is lost.",
        7,
    ),
    "BD-518": Explanation(
        "The state of the task does not allow what was asked of it.",
        "A task that is settled cannot fail, one that was never doubtful cannot be decided.",
        "`bydawn show TASK` tells the state; then retry, resolve or cancel as it allows.",
    ),
    "BD-519": Explanation(
        "A decision would have broken a rule that protects money: a fault of bydawn.",
        "The ledger checks every purchase again before it is recorded, and refused this one; nothing more was sent.",
        "Keep the ledger and report it with the message; `bydawn verify` tells whether the record is whole.",
        1,
    ),
}

EXPLANATIONS: Mapping[str, Explanation] = MappingProxyType(_INPUT | _SETTINGS | _RUNNING | _COMMANDS | _LEDGER)
