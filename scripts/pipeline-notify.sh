#!/usr/bin/env bash
# Tell a webhook that a build failed or that the first one after a failure went well.
#
# STATUS is failure or recovery. NOTIFY_URL is the webhook; it is a secret, so it is given in the
# environment and never printed. What is sent follows from its host, or from NOTIFY_FORMAT:
#   generic   {"text", "status", "job", "build", "branch", "commit", "url"}
#   slack     {"text"}                       hooks.slack.com
#   telegram  {"chat_id", "text"}            api.telegram.org; the URL ends with ?chat_id=...
set -euo pipefail
# shellcheck source=scripts/pipeline-lib.sh
. "$(dirname "$0")/pipeline-lib.sh"

case ${STATUS:-} in
  failure | recovery) ;;
  *) stop "'${STATUS:-}' is no status. Use STATUS=failure or STATUS=recovery." ;;
esac
need curl python3
[ -n "${NOTIFY_URL:-}" ] ||
  stop "nobody was told: NOTIFY_URL is empty. In Jenkins it is the credential 'notify-url' (NOTIFY_URL of the controller)."

message=$(mktemp)
trap 'rm -f "$message"' EXIT
# Prints the address and writes the message; quoting is left to something that knows JSON.
address=$(python3 - "$message" <<'PYTHON'
import json, os, sys
from urllib.parse import parse_qs, urlsplit

get = os.environ.get
url = urlsplit(get("NOTIFY_URL"))
if url.scheme not in ("http", "https") or not url.hostname:
    sys.exit("pipeline-notify.sh: NOTIFY_URL is no http or https address; nobody was told.")
known = {"hooks.slack.com": "slack", "api.telegram.org": "telegram"}
kind = get("NOTIFY_FORMAT") or known.get(url.hostname, "generic")
facts = {
    "status": get("STATUS"),
    "job": get("JOB_NAME", "keyrack"),
    "build": get("BUILD_NUMBER", ""),
    "branch": get("BRANCH_NAME", ""),
    "commit": get("TAG", ""),
    "url": get("BUILD_URL", ""),
}
what = "failed" if facts["status"] == "failure" else "works again"
text = f"{facts['job']} build {facts['build']} {what} at commit {facts['commit'][:12]}: {facts['url']}"
if kind == "slack":
    message = {"text": text}
elif kind == "telegram":
    chat = parse_qs(url.query).get("chat_id")
    if not chat:
        sys.exit("pipeline-notify.sh: the Telegram address needs ?chat_id=... at its end; nobody was told.")
    message = {"chat_id": chat[0], "text": text}
    url = url._replace(query="")
elif kind == "generic":
    message = {"text": text} | facts
else:
    sys.exit(f"pipeline-notify.sh: '{kind}' is no format. Use NOTIFY_FORMAT=generic, slack or telegram.")
with open(sys.argv[1], "w") as file:
    json.dump(message, file)
print(url.geturl())
PYTHON
)
# The address is read from standard input: in the arguments every process of the machine could see it.
printf 'url = "%s"\n' "$address" |
  curl --config - --silent --show-error --fail --max-time 15 --retry 2 --retry-connrefused \
    --header 'Content-Type: application/json' --data-binary "@$message" --output /dev/null ||
  stop "the webhook did not take the message; nobody was told."
say "told the webhook: $STATUS"
