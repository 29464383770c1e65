"""What is known of Segmind: its models, limits and habits, each with its source and how sure it is.

The dialect is in ``adapters.segmind``.
"""

from adapters.capabilities import Capabilities, Known, Listing, Model, Rate, References

_ASYNC = "https://docs.segmind.com/api-reference/async-inference"
_ERRORS = "https://docs.segmind.com/serverless-api"
_RATES = "https://docs.segmind.com/api-reference/rate-limits"
_MODELS = "https://www.segmind.com/models/nano-banana-2/api"
_SDK = "the official Python client, segmind 1.3.0"
_READ = "2026-11-22"

PAGE_SIZE = 100
FILE_LIFE_S = 7 * 86_400.0

_ASPECTS = ("1:1", "2:3", "3:2", "4:3", "3:4", "4:5", "5:4", "16:9", "9:16", "21:9")

CAPABILITIES = Capabilities(
    provider="segmind",
    title="Segmind",
    key_env="SEGMIND_API_KEY",
    base_url="https://api.segmind.com",
    shape=Known("async", _ASYNC, _READ, "confirmed"),
    models=Known(
        (
            Model(
                "nano-banana",
                "nano-banana",
                max_references=10,
                aspects=_ASPECTS,
                resolutions=("1K",),
                formats=("jpg",),
            ),
            Model(
                "nano-banana-2",
                "nano-banana-2",
                max_references=14,
                aspects=(*_ASPECTS, "1:4", "4:1", "1:8", "8:1"),
                resolutions=("1K", "2K", "4K"),
                seed=True,
                grounding=True,
            ),
            Model(
                "nano-banana-pro",
                "nano-banana-pro",
                max_references=14,
                aspects=_ASPECTS,
                resolutions=("1K", "2K", "4K"),
                seed=True,
                grounding=True,
            ),
        ),
        _MODELS,
        _READ,
        "assumed",
    ),
    submit_rate=Known(Rate(50, 60.0), _RATES, _READ, "reported"),
    poll_rate=Known(Rate(50, 60.0), _RATES, _READ, "reported"),
    polls_share_submit_rate=Known(True, "whether polls count is not documented", _READ, "assumed"),
    concurrency=Known(10, "no figure is published; 50 calls a minute carry few more", _READ, "assumed"),
    max_concurrency=Known(100, "no figure is published", _READ, "assumed"),
    submit_timeout_s=Known(60.0, "v2 answers at once", _READ, "assumed"),
    typical_latency_s=Known(35.0, _MODELS, _READ, "reported"),
    visible_after_s=Known(3_660.0, _ASYNC, _READ, "confirmed"),  # a 404 within the hour contradicts the docs
    result_life_s=Known(3_600.0, _ASYNC, _READ, "confirmed"),
    result_hosts=Known(("images.segmind.com", ".segmind.com"), _SDK, _READ, "confirmed"),
    charged_on=Known("success", _ERRORS, _READ, "confirmed"),
    # The client calls an upload persistent and no document gives a limit: a day, and what a call can carry.
    references=Known(
        References(files="upload", max_file_bytes=10_000_000, upload_life_s=86_400.0), _SDK, _READ, "assumed"
    ),
    no_job_answers=Known(
        (
            "400: malformed request or missing field",
            "401: the key was not accepted",
            "403: the team may not use this model",
            "404: no such model",
            "405: wrong verb",
            "406 with its reason: content type, credits, spend limit, or a rejected value",
            "410: the model is retired",
            "429: too many requests",
        ),
        _ERRORS,
        _READ,
        "confirmed",
    ),
    listing=Known(
        Listing(lag_s=120.0, shows_input_s=28 * 86_400.0, keeps_s=28 * 86_400.0, page_size=PAGE_SIZE),
        _SDK,
        _READ,
        "assumed",
    ),
    version_pin=Known(False, "no version stands in a path or body; a retired model answers 410", _READ, "assumed"),
    balance=Known("usd", _ERRORS, _READ, "confirmed"),  # "credits", which are dollars
    quote=Known(False, "neither documents nor client have a call for it", _READ, "assumed"),
    lanes="one per aspect ratio",
    best_for="batches segmented by format: a lane per aspect ratio",
)
