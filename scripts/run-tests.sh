#!/usr/bin/env bash
# run-tests.sh JOBS PYTEST...: run tests side by side in JOBS processes, then those that wait for time limits
# beside each other, then those that measure what something costs with nothing beside them.
# PYTEST is the command with its arguments. JUNIT is a directory for reports.
set -euo pipefail

jobs=$1
shift
readonly NOTHING_COLLECTED=5

# run NAME PYTEST...
run() {
  local name=$1 code=0
  shift
  "$@" ${JUNIT:+"--junitxml=$JUNIT/$name.xml"} || code=$?
  [ "$code" -eq "$NOTHING_COLLECTED" ] || collected=yes
  [ "$code" -eq 0 ] || [ "$code" -eq "$NOTHING_COLLECTED" ] || exit "$code"
}

collected=no
# The tests of one file share services, so a file stays in one process.
run side-by-side "$@" -m "not timing and not time_limits" --numprocesses "$jobs" --dist loadfile
run time-limits "$@" -m time_limits --numprocesses "$jobs" --dist loadfile
run timing "$@" -m timing
[ "$collected" = yes ] || exit "$NOTHING_COLLECTED"
