"""`keyrack context`: services by name. Each verb is a module."""
