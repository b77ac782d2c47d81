"""`keyrack snapshot`: work with the files that keep a store on a disk. Each verb is a module."""
