"""Whether a request fits a model, in words for the user.

The checks that follow from a capability record alone; what only one provider knows stays in its codec.
"""

from adapters.base import ImageRequest
from adapters.capabilities import Capabilities, Model, References
from adapters.reading import is_web_address
from adapters.references import is_inline, local_file


def model_of(record: Capabilities, request: ImageRequest) -> Model:
    """Find the model of a request that has passed :func:`misfit`.

    Raises:
        ValueError: the request never fitted: our own mistake.
    """
    model = record.model(request.model)
    if model is None:
        raise ValueError(f"{record.title} has no model {request.model!r}")
    return model


def misfit(record: Capabilities, request: ImageRequest) -> str | None:
    """Say why the provider's record rules the request out; None when it does not."""
    title = record.title
    model = record.model(request.model)
    if model is None:
        names = ", ".join(known.name for known in record.models.value)
        return f"{title} has no model {request.model!r}; it has {names}"
    if request.model_version and (record.version_pin is None or not record.version_pin.value):
        return f"{title} has no version pins"
    return (
        _prompt_misfit(model, request, title)
        or _shape_misfit(model, request, title)
        or _references_misfit(model, record.references.value, request, title)
    )


def _prompt_misfit(model: Model, request: ImageRequest, title: str) -> str | None:
    if not request.prompt.strip():
        return "the prompt is empty"
    try:
        request.prompt.encode()
    except UnicodeEncodeError:
        return "the prompt holds half of a Unicode character"
    if model.max_prompt_chars and len(request.prompt) > model.max_prompt_chars:
        return (
            f"the prompt has {len(request.prompt)} characters, {title} takes {model.max_prompt_chars} for {model.name}"
        )
    return None


def _shape_misfit(model: Model, request: ImageRequest, title: str) -> str | None:
    if request.aspect not in model.aspects:
        return f"{title} has no aspect {request.aspect} for {model.name}; it has {', '.join(model.aspects)}"
    if request.aspect == "auto" and not request.references:
        return "aspect auto follows the first reference, and there is none"
    if request.resolution not in model.resolutions:
        return f"{title} has no resolution {request.resolution} for {model.name}; it has {', '.join(model.resolutions)}"
    if request.output_format and request.output_format not in model.formats:
        return f"{title} has no format {request.output_format} for {model.name}; it has {', '.join(model.formats)}"
    if request.seed is not None and not model.seed:
        return f"{title} takes no seed for {model.name}"
    if request.grounding and not model.grounding:
        return f"{title} has no grounding for {model.name}"
    return None


def _references_misfit(model: Model, taken: References, request: ImageRequest, title: str) -> str | None:
    if len(request.references) > model.max_references:
        return f"{len(request.references)} references, {title} takes at most {model.max_references} for {model.name}"
    for place, reference in enumerate(request.references, 1):
        why = _reference_misfit(reference, taken, title)
        if why is not None:
            return f"reference {place}: {why}"
    return None


def _reference_misfit(reference: str, taken: References, title: str) -> str | None:
    file = local_file(reference)
    if file is None and not is_inline(reference):
        if not is_web_address(reference, plain=True):
            return "neither an http(s) URL nor a file"
        return None if taken.urls else f"{title} takes no URLs, only files"
    if not taken.files:
        return f"{title} takes no local files, only URLs"
    if file is None:
        return None
    if file.media_type not in taken.media_types:
        return f"{title} takes no {file.media_type}, only {', '.join(taken.media_types)}"
    if taken.max_file_bytes and file.size > taken.max_file_bytes:
        return f"the file has {file.size:,} bytes, {title} takes {taken.max_file_bytes:,}"
    return None
