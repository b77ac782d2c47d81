"""`keyrack token`: make tokens, look at them, take them back. Each verb is a module."""
