#!/usr/bin/env bash
# Runs tests/faults with the pytest of $PYTHON; the arguments are pytest's. What measures how long clients wait has
# the machine to itself; the soak goes on beside the rest, so that all of it takes under three minutes.
set -euo pipefail
cd "$(dirname "$0")/.."

timed=tests/faults/test_hostile_clients.py
soak=tests/faults/test_soak.py
pytest() { "$PYTHON" -m pytest -s "$@"; }

status=0
pytest "$timed" "$@" || status=$?

log=$(mktemp)
trap 'rm -f "$log"' EXIT
pytest "$soak" "$@" >"$log" 2>&1 &
soaking=$!
pytest tests/faults --ignore "$timed" --ignore "$soak" "$@" || status=$?
wait "$soaking" || status=$?
cat "$log"
exit "$status"
