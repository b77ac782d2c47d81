"""Faults from outside: what dies, fills up, runs out or stands still, while clients go on.

`make test-faults` runs them; KEYRACK_TEST_ROUNDS makes them as many times as long.
"""
