"""Why a service could not start, for Kubernetes: the kubelet shows it in the state of the pod."""

from __future__ import annotations

import contextlib
import os
from typing import Final

TERMINATION_LOG: Final = "/dev/termination-log"
"""Where the kubelet mounts a file into each container. Nowhere else is there such a file."""
_MOST_BYTES: Final = 4096
"""What the kubelet reads of it."""


def leave_message(sentence: str, path: str = TERMINATION_LOG) -> None:
    """Write a sentence there, where there is such a file; none is made."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
        try:
            os.write(descriptor, sentence.encode(errors="replace")[:_MOST_BYTES])
        finally:
            os.close(descriptor)
