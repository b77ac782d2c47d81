"""Other stores' commands, on Keyrack's engines: what their clients speak, where one asks for it."""
