"""A store in the very process that uses it: `keyrack.open`.

`engine.py` is the embedded engine for any number of threads, `calls.py` answers requests in the
thread that asks, `store.py` has the store open and a thread for what waits, `snapshots.py` keeps it
on a disk, `client.py` is what people hold.
"""
