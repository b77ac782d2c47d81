"""What waiting clients are told about changes: subscribers, waiting reads, waiting locks."""
