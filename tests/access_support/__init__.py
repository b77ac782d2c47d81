"""A service with access control, and those who use it."""

from access_support.service import Guarded, Who

__all__ = ["Guarded", "Who"]
