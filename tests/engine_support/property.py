"""How many examples Hypothesis tries. Apart from `world`, so that other processes start quickly."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, Phase, settings

from engine_support.world import rounds


def examples(default: int) -> settings:
    """Return Hypothesis settings with at least `default` examples and no deadline.

    A failure is made small only in a bigger run: that can take minutes.
    """
    bigger = "KEYRACK_TEST_ROUNDS" in os.environ
    return settings(
        phases=[phase for phase in Phase if bigger or phase is not Phase.shrink],
        max_examples=rounds(default),
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
