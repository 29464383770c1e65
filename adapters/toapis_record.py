"""What is known of Toapis: its models, limits and habits, each with its source and how sure it is.

The dialect is in ``adapters.toapis``.
"""

from adapters.capabilities import Capabilities, Known, Lookup, Model, Rate, References

_FLASH = "https://docs.toapis.com/docs/en/api-reference/images/gemini-3.1-flash/generation"
_TASK = "https://docs.toapis.com/docs/cn/api-reference/tasks/image-status"
_FILES = "https://docs.toapis.com/docs/en/api-reference/uploads/images"
_RATES = "https://docs.toapis.com/docs/cn/api-reference/rate-limits/async-tasks"
_HOOKS = "https://docs.toapis.com/docs/cn/api-reference/webhooks/task-webhooks"
_MONEY = "https://docs.toapis.com/docs/en/api-reference/account/user-balance"
_CLIENT = "https://github.com/MaZhenyu-Dev/ToAPIs-GPT-image2"
_READ = "2026-11-22"

RESULT_LIFE_S = 86_400.0
UPLOAD_LIFE_S = 3_600.0  # stated nowhere; uploading again is free

_ASPECTS = ("1:1", "2:3", "3:2", "3:4", "4:3", "4:5", "5:4", "9:16", "16:9", "21:9")

CAPABILITIES = Capabilities(
    provider="toapis",
    title="Toapis",
    key_env="TOAPIS_API_KEY",
    base_url="https://toapis.com",
    shape=Known("async", _FLASH, _READ, "confirmed"),
    models=Known(
        (
            Model(
                "nano-banana",
                "gemini-2.5-flash-image-preview",
                max_references=14,
                aspects=("1:1", "2:3", "3:2", "3:4", "4:3", "9:16", "16:9"),
                resolutions=("1K",),
                max_prompt_chars=1_000,
                formats=("jpg",),
            ),
            Model(
                "nano-banana-2",
                "gemini-3.1-flash-image-preview",
                max_references=14,
                aspects=(*_ASPECTS, "1:4", "1:8", "4:1", "8:1"),
                resolutions=("0.5K", "1K", "2K", "4K"),
                formats=("jpg",),
                grounding=True,
            ),
            Model(
                "nano-banana-pro",
                "gemini-3-pro-image-preview",
                max_references=14,
                aspects=_ASPECTS,
                resolutions=("1K", "2K", "4K"),
                formats=("jpg",),
            ),
        ),
        # The three with their aspects and sizes are confirmed; 0.5K and the place of ``google_search`` a client's.
        _FLASH,
        _READ,
        "reported",
    ),
    # Of the default group; of a user, not of a key: two keys of one user share it.
    submit_rate=Known(Rate(50, 10.0), _RATES, _READ, "confirmed"),
    poll_rate=Known(Rate(500, 10.0), _RATES, _READ, "confirmed"),
    polls_share_submit_rate=Known(False, _RATES, _READ, "confirmed"),
    concurrency=Known(150, "what 5 creates a second keep busy at 30 s each", _READ, "assumed"),
    max_concurrency=Known(6_000, _CLIENT, _READ, "reported"),
    submit_timeout_s=Known(60.0, "creates answer at once", _READ, "assumed"),
    typical_latency_s=Known(20.0, _TASK, _READ, "confirmed"),  # "5-30 seconds"
    visible_after_s=Known(15.0, "no delay is documented", _READ, "assumed"),
    result_life_s=Known(RESULT_LIFE_S, _TASK, _READ, "confirmed"),
    result_hosts=Known((".toapis.com", ".toapis.cn", "files.dashlyai.cc"), _TASK, _READ, "confirmed"),
    charged_on=Known("success", "deducted at the submit, given back for a failed task", _READ, "assumed"),
    no_job_answers=Known(
        (
            "400: the request was not valid",
            "401: the key was not accepted",
            "402: not enough balance",
            "403 in Toapis' own words: the key may not use this model",
            "422: against the content policy",
            "429: too fast",
        ),
        _TASK,
        _READ,
        "assumed",
    ),
    references=Known(
        References(files="upload", max_file_bytes=10_000_000, upload_life_s=UPLOAD_LIFE_S), _FILES, _READ, "confirmed"
    ),
    lookup=Known(Lookup(lag_s=15.0), _TASK, _READ, "assumed"),
    callback=Known("signed", _HOOKS, _READ, "reported"),
    balance=Known("credits", _MONEY, _READ, "confirmed"),
    best_for="many models under one account; every purchase found again by our own id",
)
