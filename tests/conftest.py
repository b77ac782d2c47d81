"""What holds for the tests of all directories: how Hypothesis looks for cases.

The same cases each time, and no limit of time: a machine that is busy is no defect, and a case that
comes up once in many runs belongs to whoever looks for some: in a bigger run (KEYRACK_TEST_ROUNDS),
or with KEYRACK_TEST_RANDOM=1.
"""

from __future__ import annotations

import os

try:
    from hypothesis import HealthCheck, settings
except ModuleNotFoundError:  # in the environments of suites that do without it
    pass
else:
    settings.register_profile(
        "keyrack",
        deadline=None,
        derandomize=not {"KEYRACK_TEST_ROUNDS", "KEYRACK_TEST_RANDOM"}.intersection(os.environ),
        suppress_health_check=[HealthCheck.too_slow],
    )
    settings.load_profile("keyrack")
