"""`keyrack data`: see what a data directory holds, and go on with what can be read of it."""
