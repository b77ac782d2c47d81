"""What the tests of the Python client share."""

from client_support.kinds import KINDS, Asked, Where, asked, client_of
from client_support.scripted import Scripted, answer, read_request

__all__ = ["KINDS", "Asked", "Scripted", "Where", "answer", "asked", "client_of", "read_request"]
