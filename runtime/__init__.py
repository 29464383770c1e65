"""The actors of a night and the world they act on.

Where httpx finds rich and click, which bydawn uses, it imports its own command-line program as well: with them and
pygments that takes longer than all of httpx, at every start of a run.  ``None`` makes that import fail, and httpx goes
on without its program, as it does where rich is missing.
"""

import sys

sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]  # None is how Python spells "cannot be imported"
