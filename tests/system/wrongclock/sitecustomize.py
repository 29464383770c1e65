"""Loaded by Python itself where it is on the path: this process believes another time of day than its machine.

Only the wall clock is wrong, as on a real machine: what counts seconds goes on counting.
"""

import os
import time

_AHEAD_S = int(os.environ.get("WRONG_CLOCK_S", "0"))
_time, _time_ns = time.time, time.time_ns

time.time = lambda: _time() + _AHEAD_S
time.time_ns = lambda: _time_ns() + _AHEAD_S * 1_000_000_000
