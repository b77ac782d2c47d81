"""A small synchronous client, on the standard library alone."""

from keyrack.client.client import Client, ClientError, Refused, Unreachable, Value

__all__ = ["Client", "ClientError", "Refused", "Unreachable", "Value"]
