#!/usr/bin/env bash
# Try the API against its own OpenAPI document with Schemathesis: no 5xx, no undocumented answer.
#
#   scripts/fuzz-api.sh [SECONDS]      the default is 60 seconds for the whole run
#
# Starts a service of its own on a free port, and ends it. PYTHON (default python3) has Keyrack,
# SCHEMATHESIS (default schemathesis) is the tool: pip install schemathesis. PHASES and SEED are
# given to it; REPORTS names a directory for its reports.
set -euo pipefail

seconds=${1:-60}
python=${PYTHON:-python3}
tool=${SCHEMATHESIS:-schemathesis}
phases=${PHASES:-examples,coverage,fuzzing,stateful}
here=$(cd "$(dirname "$0")/.." && pwd)

command -v "$tool" >/dev/null || { echo 'Schemathesis is needed: pip install schemathesis' >&2; exit 2; }
work=$(mktemp -d)
service=
finish() {
  if [ -n "$service" ]; then
    kill -TERM "$service" 2>/dev/null || true
    wait "$service" 2>/dev/null || true
  fi
  rm -rf "$work"
}
trap finish EXIT

: >"$work/log" # it is read before the service has begun to write
"$python" -m keyrack serve --port 0 --workers 1 --memory 256m >"$work/log" 2>&1 &
service=$!
url=
for _ in $(seq 1 100); do
  url=$(sed -n 's/.*"event":"ready".*"urls":\["\([^"]*\)".*/\1/p' "$work/log")
  [ -n "$url" ] && break
  kill -0 "$service" 2>/dev/null || break
  sleep 0.1
done
if [ -z "$url" ]; then
  echo 'The service did not start:' >&2
  cat "$work/log" >&2
  exit 1
fi

options=(--url "$url" --phases "$phases" --max-time "$seconds" --request-timeout 10 --no-color)
options+=(--generation-database none --suppress-health-check all)
[ -n "${SEED:-}" ] && options+=(--seed "$SEED")
[ -n "${REPORTS:-}" ] && options+=(--report junit --report-dir "$REPORTS")
status=0
(cd "$work" && SCHEMATHESIS_HOOKS=fuzz_hooks PYTHONPATH="$here/tests/api:${PYTHONPATH:-}" "$tool" --config-file "$here/tests/api/schemathesis.toml" \
  run "${options[@]}" "$url/openapi.json") || status=$?

if grep -q -e '"level":"error"' -e Traceback "$work/log"; then
  echo 'The service has logged failures:' >&2
  grep -e '"level":"error"' -e Traceback "$work/log" >&2
  status=1
fi
# Not with `exit`: shellcheck would take the function of the trap for unused.
(exit "$status")
