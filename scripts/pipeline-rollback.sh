#!/usr/bin/env bash
# Put a release back to what it was before the last deploy, or remove it if it was the first.
# REVISION names another one (see `helm history`).
#
#   scripts/pipeline-rollback.sh              what was deployed last
#   scripts/pipeline-rollback.sh unfinished   only a deploy that was cut off or failed and still stands so
set -euo pipefail
# shellcheck source=scripts/pipeline-lib.sh
. "$(dirname "$0")/pipeline-lib.sh"

check_environment
need helm kubectl python3
check_cluster

target=(--namespace "$NAMESPACE")
if ! history=$(helm history "$RELEASE" "${target[@]}" --output json); then
  [ "${1:-}" != unfinished ] || { say "there is no release $RELEASE in $NAMESPACE: nothing was cut off"; exit 0; }
  stop "there is no release $RELEASE in $NAMESPACE: nothing to put back."
fi
if [ "${1:-}" = unfinished ] && ! python3 -c '
import json, sys
last = json.loads(sys.argv[1])[-1]["status"]
sys.exit(0 if last == "failed" or last.startswith("pending-") else 1)' "$history"; then
  say "the release $RELEASE in $NAMESPACE is whole: nothing was cut off"
  exit 0
fi
# The newest one before the last that once was good; attempts that failed are passed over.
revision=${REVISION:-$(python3 -c '
import json, sys
*earlier, last = json.loads(sys.argv[1])
good = [entry["revision"] for entry in earlier if entry["status"] in ("superseded", "deployed")]
print(max(good, default=""))' "$history")}

if [ -z "$revision" ]; then
  helm uninstall "$RELEASE" "${target[@]}" --wait --timeout "${DEPLOY_TIMEOUT:-5m}"
  say "removed $RELEASE from $ENVIRONMENT: this was its first deploy"
else
  helm rollback "$RELEASE" "$revision" "${target[@]}" --wait --timeout "${DEPLOY_TIMEOUT:-5m}"
  say "put $RELEASE in $ENVIRONMENT back to revision $revision"
fi
