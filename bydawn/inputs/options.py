"""What the user says about an input, beside the input itself."""

import msgspec

DEFAULT_MODEL = "nano-banana-2"
DEFAULT_RESOLUTION = "1K"
DEFAULT_ASPECT = "1:1"
DEFAULT_ASPECT_WITH_REFERENCES = "auto"
MAX_VARIANTS = 1000


class InputOptions(msgspec.Struct, frozen=True):
    """``aspects``, ``resolutions``, ``models`` and ``variants`` fan every row out and become part of the task ids;
    left empty they take the defaults and stay out of the ids.  A row's own column wins over them.

    ``default_model`` and ``default_resolution`` differ only where no chosen provider has the usual ones.
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
