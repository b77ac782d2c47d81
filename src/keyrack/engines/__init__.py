"""Engines: where keys, records and revisions live. `contract` says what every engine does."""
