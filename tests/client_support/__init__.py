"""What the tests of the Python client share."""

from client_support.kinds import KINDS, Asked, asked
from client_support.scripted import Scripted, answer, read_request

__all__ = ["KINDS", "Asked", "Scripted", "answer", "asked", "read_request"]
