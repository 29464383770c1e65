"""What is known of WaveSpeed: its models, limits and habits, each with its source and how sure it is.

The dialect is in ``adapters.wavespeed``.
"""

from adapters.capabilities import Capabilities, Known, Listing, Model, Rate, References

_SDK = "the official Python client, wavespeed 2.0.5"
_SUBMIT = "https://wavespeed.ai/docs/submit-task"
_MODELS = "https://wavespeed.ai/docs/docs-api/google/nano-banana-2/text-to-image-fast"
_LEVELS = "https://wavespeed.ai/docs/account-levels"
_LIFE = "https://wavespeed.ai/docs/what-are-predictions"
_TROUBLE = "https://wavespeed.ai/docs/troubleshooting-guide"
_ERRORS = "https://wavespeed.ai/blog/posts/wavespeed-api-auth-errors"
_LIST = "https://wavespeed.ai/docs/docs-common-api/predictions"
_DELETE = "https://wavespeed.ai/docs/delete-task"
_UPLOADS = "https://wavespeed.ai/docs/upload-files"
_VERIFY = "https://wavespeed.ai/docs/verify-webhooks"
_BALANCE = "https://wavespeed.ai/docs/check-balance"
_QUOTE = "https://github.com/WaveSpeedAI/mcp-server"
_READ = "2026-11-22"

WEEK_S = 7 * 86_400.0
PAGE_SIZE = 100

_TEN = ("auto", "1:1", "3:2", "2:3", "3:4", "4:3", "4:5", "5:4", "9:16", "16:9", "21:9")
_FOURTEEN = (*_TEN, "1:4", "4:1", "1:8", "8:1")
FAST = "google/nano-banana-2/text-to-image-fast"
SUCCESSOR = "google/nano-banana-2.1/text-to-image"

CAPABILITIES = Capabilities(
    provider="wavespeed",
    title="WaveSpeed",
    key_env="WAVESPEED_API_KEY",
    base_url="https://api.wavespeed.ai",
    shape=Known("async", _SUBMIT, _READ, "confirmed"),
    models=Known(
        (
            Model(
                "nano-banana",
                "google/gemini-2.5-flash-image/text-to-image",
                max_references=10,
                aspects=_TEN,
                resolutions=("1K",),
            ),
            Model(
                "nano-banana-2",
                "google/nano-banana-2/text-to-image",
                max_references=14,
                aspects=_FOURTEEN,
                resolutions=("0.5K", "1K", "2K", "4K"),
            ),
            Model(
                "nano-banana-pro",
                "google/nano-banana-pro/text-to-image",
                max_references=14,
                aspects=_TEN,
                resolutions=("1K", "2K", "4K"),
            ),
            Model(FAST, FAST, max_references=14, aspects=_FOURTEEN, resolutions=("2K", "4K")),
            Model(SUCCESSOR, SUCCESSOR, max_references=14, aspects=_FOURTEEN, resolutions=("1K", "2K", "4K")),
        ),
        _MODELS,
        _READ,
        "reported",
    ),
    # The level that every account starts with; 500, 3,000 and 5,000 a minute after $100, $1,000 and $10,000 topped up.
    submit_rate=Known(Rate(10, 60.0), _LEVELS, _READ, "confirmed"),
    poll_rate=Known(Rate(10, 1.0), "no limit is published; ours, to be modest", _READ, "assumed"),
    polls_share_submit_rate=Known(False, "the limits are told in images", _READ, "assumed"),
    # The first level works on 3 at once.  What is above waits there and is not refused: a few more keep it busy.
    concurrency=Known(10, _LEVELS, _READ, "assumed"),
    max_concurrency=Known(5_000, _LEVELS, _READ, "confirmed"),
    submit_timeout_s=Known(60.0, _SDK, _READ, "confirmed"),
    typical_latency_s=Known(30.0, "no figure is published", _READ, "assumed"),
    visible_after_s=Known(60.0, "no delay is documented", _READ, "assumed"),
    result_life_s=Known(WEEK_S, _LIFE, _READ, "confirmed"),
    result_hosts=Known((".cloudfront.net", ".wavespeed.ai"), _LIST, _READ, "reported"),
    charged_on=Known("success", _TROUBLE, _READ, "confirmed"),  # at the submission; refunded within 3 h of a failure
    no_job_answers=Known(
        (
            "400: the request was not valid",
            "401: the key was not accepted",
            "402, or 400 or 403 that speak of the balance: not enough credit",
            "403 in WaveSpeed's own words: not allowed",
            "404 in WaveSpeed's own words: no such model",
            "429: too many requests",
        ),
        _ERRORS,
        _READ,
        "assumed",
    ),
    references=Known(
        References(files="upload", max_file_bytes=20_000_000, upload_life_s=WEEK_S), _UPLOADS, _READ, "confirmed"
    ),
    # Items never show their input: the listing serves for the verdict "nothing was taken" alone.
    listing=Known(Listing(lag_s=60.0, shows_input_s=0.0, keeps_s=WEEK_S, page_size=PAGE_SIZE), _LIST, _READ, "assumed"),
    cancel=Known(True, _DELETE, _READ, "assumed"),
    callback=Known("signed", _VERIFY, _READ, "confirmed"),
    version_pin=Known(False, "neither path nor body takes a version", _READ, "assumed"),
    balance=Known("usd", _BALANCE, _READ, "confirmed"),
    quote=Known(True, _QUOTE, _READ, "confirmed"),
    best_for="predictable prices: tiers from 0.5K to 4K, a quote for each request, signed callbacks",
)
