"""What the user says about an input, beside the input itself, and what is taken where nothing is said."""

from collections.abc import Sequence

import msgspec

from adapters.capabilities import Capabilities

DEFAULT_MODEL = "nano-banana-2"
DEFAULT_RESOLUTION = "1K"
DEFAULT_ASPECT = "1:1"
DEFAULT_ASPECT_WITH_REFERENCES = "auto"
MAX_VARIANTS = 1000


class InputOptions(msgspec.Struct, frozen=True):
    """``aspects``, ``resolutions``, ``models`` and ``variants`` fan every row out and become part of the task ids;
    left empty they take the defaults and stay out of the ids.  A row's own column wins over them.

    The defaults differ only where no chosen provider has the usual ones.
    ``maps`` is field -> column or template, ``references`` come before every row's own.
    """

    maps: dict[str, str] = {}
    references: tuple[str, ...] = ()
    aspects: tuple[str, ...] = ()
    resolutions: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    variants: int | None = None
    encoding: str = ""
    skip_invalid: bool = False
    default_model: str = DEFAULT_MODEL
    default_resolution: str = DEFAULT_RESOLUTION
    default_aspect_with_references: str = DEFAULT_ASPECT_WITH_REFERENCES


def with_defaults_of(records: Sequence[Capabilities], options: InputOptions) -> InputOptions:
    """Take other defaults where none of the chosen providers could draw with the usual ones.

    Where none has the usual model, the first model of the first one stands in.  Where none can draw in the aspect of
    the references, tasks with references are drawn like all others.
    """
    if records and not any(record.model(options.default_model) for record in records):
        first = records[0].models.value[0]
        usual = options.default_resolution
        options = msgspec.structs.replace(
            options,
            default_model=first.name,
            default_resolution=usual if usual in first.resolutions else first.resolutions[0],
        )
    names = options.models or (options.default_model,)
    models = [model for record in records for name in names if (model := record.model(name)) is not None]
    if models and not any(options.default_aspect_with_references in model.aspects for model in models):
        options = msgspec.structs.replace(options, default_aspect_with_references=DEFAULT_ASPECT)
    return options
