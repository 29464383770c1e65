"""For all tests: the same examples of each law, however slow the machine is, and no proxy of whoever runs them."""

import os

from hypothesis import HealthCheck, settings

# ``-m slow`` looks for new examples.
settings.register_profile(
    "repeatable", derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("repeatable")

# The clients of the tests speak to this machine alone; some would ask a proxy for it.
for name in ("http_proxy", "https_proxy", "all_proxy"):
    os.environ.pop(name, None)
    os.environ.pop(name.upper(), None)
