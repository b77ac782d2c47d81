#!/usr/bin/env bash
# Print why the pods of a release are not ready, as far as the cluster tells: their state, what each
# container said last, and the events. It changes nothing and always succeeds.
set -uo pipefail
# shellcheck source=scripts/pipeline-lib.sh
. "$(dirname "$0")/pipeline-lib.sh"

check_environment
ours=(--namespace "$NAMESPACE" --selector "app.kubernetes.io/instance=$RELEASE,app.kubernetes.io/component=server")
ask() { kubectl --request-timeout=15s "$@" 2>&1 || true; }

say "--- pods of $RELEASE in $NAMESPACE"
ask get pods "${ours[@]}" --output wide
for pod in $(kubectl --request-timeout=15s get pods "${ours[@]}" --output 'jsonpath={.items[*].metadata.name}' 2>/dev/null); do
  say "--- $pod: why it waits, and with which message it ended"
  # The state of each container, now and before its last start; a message is the program's own sentence.
  ask get pod "$pod" --namespace "$NAMESPACE" --output 'jsonpath={range .status.conditions[?(@.status=="False")]}{.type}{": "}{.reason}{" "}{.message}{"\n"}{end}{range .status.containerStatuses[*]}{.name}{": restarts "}{.restartCount}{" "}{.state.waiting.reason}{" "}{.state.waiting.message}{" "}{.state.terminated.message}{"\n"}{.lastState.terminated.reason}{" "}{.lastState.terminated.message}{"\n"}{end}'
  say "--- $pod: its last lines"
  ask logs "$pod" --namespace "$NAMESPACE" --all-containers --tail 20
  say "--- $pod: the last lines before its last start"
  ask logs "$pod" --namespace "$NAMESPACE" --all-containers --tail 20 --previous
done
say "--- events in $NAMESPACE"
ask get events --namespace "$NAMESPACE" --sort-by .lastTimestamp | tail -n 30
exit 0
