"""HTTP/1.1 on one connection: from bytes to requests, and from answers to bytes."""
