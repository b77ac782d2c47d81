"""The Valkey engine: one store for Keyrack processes on any number of machines.

Nothing is imported here: addresses are read where the client library may be missing.
"""
