#!/usr/bin/env bash
# Put a release back to what it was before the last deploy, or remove it if it was the first.
# REVISION names another one (see `helm history`).
set -euo pipefail
# shellcheck source=scripts/pipeline-lib.sh
. "$(dirname "$0")/pipeline-lib.sh"

check_environment
need helm kubectl python3
check_cluster

target=(--namespace "$NAMESPACE")
history=$(helm history "$RELEASE" "${target[@]}" --output json) ||
  stop "there is no release $RELEASE in $NAMESPACE: nothing to put back."
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
