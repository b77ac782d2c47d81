#!/usr/bin/env bash
# Check a running service from outside, with bash and curl only: the seed API, to the letter.
#
#   scripts/verify-api.sh [URL]        the default URL is http://127.0.0.1:8088
#
# KEYRACK_TOKEN is the token to use where the service wants one; it has to be allowed to read, set and
# delete keys that begin with `verify-`.
# CURL_OPTIONS are given to curl, for example "--cacert ca.pem" or "--unix-socket /run/keyrack.sock".
# ATTEMPTS (default 30) times, a second apart, the service is waited for. Prints what was checked and
# ends with a non-zero status on the first difference.
set -euo pipefail

url=${1:-${KEYRACK_URL:-http://127.0.0.1:8088}}
url=${url%/}
attempts=${ATTEMPTS:-30}
read -r -a options <<<"${CURL_OPTIONS:-}"
# A key of this run alone, so that a service in use is not disturbed and runs do not meet.
key="verify-$$-$RANDOM$RANDOM"

request() { # method path [body]: prints status and media type; the body goes to $answer
  local method=$1 path=$2
  local -a arguments=(--silent --show-error --max-time 10 --request "$method")
  if [ $# -gt 2 ]; then
    arguments+=(--header 'Content-Type: application/json' --data-binary "$3")
  fi
  : >"$answer"
  # By a file, as others on the machine can read a command line.
  curl --config <(credentials) "${options[@]}" "${arguments[@]}" --output "$answer" \
    --write-out '%{http_code} %{content_type}\n' "$url$path"
}

credentials() {
  if [ -n "${KEYRACK_TOKEN:-}" ]; then
    printf 'header = "Authorization: Bearer %s"\n' "$KEYRACK_TOKEN"
  fi
}

check() { # what expected-status expected-type expected-body method path [body]
  local what=$1 status=$2 type=$3 body=$4
  shift 4
  local got
  if ! got=$(request "$@"); then
    printf 'FAIL  %s: %s %s got no answer\n' "$what" "$1" "$url$2" >&2
    exit 1
  fi
  local got_body
  got_body=$(cat "$answer" && printf x)
  got_body=${got_body%x}
  if [ "$got" != "$status $type" ] || [ "$got_body" != "$body" ]; then
    printf 'FAIL  %s: %s %s\n' "$what" "$1" "$url$2" >&2
    printf '      expected %s %s\n               %s\n' "$status" "$type" "$body" >&2
    printf '      answered %s\n               %s\n' "$got" "$got_body" >&2
    exit 1
  fi
  printf 'ok    %s\n' "$what"
}

wait_for_service() {
  local attempt
  for ((attempt = 1; attempt <= attempts; attempt++)); do
    if curl "${options[@]}" --silent --fail --max-time 5 --output /dev/null "$url/readyz"; then
      return
    fi
    [ "$attempt" -lt "$attempts" ] && sleep 1
  done
  printf 'FAIL  %s/readyz did not answer 200 in %s attempts\n' "$url" "$attempts" >&2
  exit 1
}

command -v curl >/dev/null || { echo 'curl is needed: apt-get install curl' >&2; exit 2; }
answer=$(mktemp)
trap 'rm -f "$answer"' EXIT

json=application/json
stored='{"status":"success","message":"key-value pair is set successfully"}'
missing='{"status":"error","message":"Key not found"}'

printf 'checking %s\n' "$url"
wait_for_service
check 'a missing key is not found' 404 $json "$missing" GET "/get/$key"
check 'a key is set' 200 $json "$stored" POST /set '{"key":"'"$key"'","value":"value_1"}'
check 'the key is got' 200 $json '{"key":"'"$key"'","value":"value_1"}' GET "/get/$key"
check 'the key is set again' 200 $json "$stored" POST /set '{"key":"'"$key"'","value":{"n":[1,2.50]},"ttl":60}'
check 'a JSON value comes back as it was' 200 $json '{"key":"'"$key"'","value":{"n":[1,2.50]}}' GET "/get/$key"
check 'the key is deleted' 204 '' '' DELETE "/v1/keys/$key"
check 'a deleted key is not found' 404 $json "$missing" GET "/get/$key"
check 'the service is healthy' 200 'text/plain; charset=utf-8' $'ok\n' GET /healthz
printf 'all checks passed\n'
