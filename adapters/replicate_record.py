"""What is known of Replicate: its models, limits and habits, each with its source and how sure it is.

The dialect is in ``adapters.replicate``.
"""

from adapters.capabilities import Capabilities, Known, Listing, Model, Rate, References

_OA = "https://api.replicate.com/openapi.json"
_LIMITS = "https://replicate.com/docs/topics/predictions/rate-limits"
_RETENTION = "https://replicate.com/docs/topics/predictions/data-retention"
_HOOKS = "https://replicate.com/docs/topics/webhooks/verify-webhook"
_DEADLINES = "https://replicate.com/changelog/2025-10-16-prediction-deadlines"
_READ = "2026-11-22"

RESULT_LIFE_S = 3600.0
UPLOAD_LIFE_S = 3600.0
_MAX_UPLOAD = 100 * 10**6
PAGE_SIZE = 100

_ASPECTS = ("auto", "1:1", "2:3", "3:2", "3:4", "4:3", "4:5", "5:4", "9:16", "16:9", "21:9")

CAPABILITIES = Capabilities(
    provider="replicate",
    title="Replicate",
    key_env="REPLICATE_API_TOKEN",
    base_url="https://api.replicate.com",
    shape=Known("async", _OA, _READ, "confirmed"),
    models=Known(
        (
            Model(
                "nano-banana",
                "google/nano-banana",
                max_references=10,  # not documented; the figure other hosts of the model give
                aspects=_ASPECTS,
                resolutions=("1K",),
            ),
            Model(
                "nano-banana-2",
                "google/nano-banana-2",
                max_references=14,
                aspects=(*_ASPECTS, "1:4", "1:8", "4:1", "8:1"),
                resolutions=("1K", "2K", "4K"),
                grounding=True,
            ),
            Model(
                "nano-banana-pro",
                "google/nano-banana-pro",
                max_references=14,
                aspects=_ASPECTS,
                resolutions=("1K", "2K", "4K"),
            ),
        ),
        "https://replicate.com/google/nano-banana-2/versions",
        _READ,
        "reported",
    ),
    submit_rate=Known(Rate(600, 60.0), _LIMITS, _READ, "confirmed"),
    poll_rate=Known(Rate(3000, 60.0), _LIMITS, _READ, "confirmed"),
    polls_share_submit_rate=Known(False, _LIMITS, _READ, "confirmed"),
    concurrency=Known(100, "no cap is published; a start that 600 a minute can fill", _READ, "assumed"),
    max_concurrency=Known(600, "one minute of creates", _READ, "assumed"),
    submit_timeout_s=Known(60.0, "creates answer at once without Prefer: wait", _READ, "assumed"),
    typical_latency_s=Known(42.0, "https://lumenfall.ai/models/google/gemini-3-pro-image-preview", _READ, "reported"),
    visible_after_s=Known(60.0, "no delay is documented", _READ, "assumed"),
    result_life_s=Known(RESULT_LIFE_S, _RETENTION, _READ, "confirmed"),
    result_hosts=Known(("replicate.delivery", ".replicate.delivery"), _OA, _READ, "confirmed"),
    charged_on=Known("success", _DEADLINES, _READ, "assumed"),
    references=Known(
        References(files="upload", max_file_bytes=_MAX_UPLOAD, upload_life_s=UPLOAD_LIFE_S), _OA, _READ, "confirmed"
    ),
    no_job_answers=Known(
        (
            "400, 413 or 422: the request was not valid",
            "401: the token was not accepted",
            "402: not enough credit",
            "403: not allowed",
            "404: no such model",
            "429: too many requests",
        ),
        _OA,
        _READ,
        "assumed",
    ),
    listing=Known(
        Listing(lag_s=10.0, shows_input_s=3600.0, keeps_s=14 * 86_400.0, page_size=PAGE_SIZE), _OA, _READ, "assumed"
    ),
    cancel=Known(True, _DEADLINES, _READ, "confirmed"),
    callback=Known("signed", _HOOKS, _READ, "confirmed"),
    # Official models report the version "hidden": whether they can still be called by one is not documented.
    version_pin=Known(True, _OA, _READ, "assumed"),
    best_for="reproducible runs: version pins, listing, webhooks",
)
