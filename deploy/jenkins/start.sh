#!/usr/bin/env bash
# Start the controller, but only with what it needs. Jenkins would put an empty string where a
# variable of jenkins.yaml is missing: an administrator without password, a webhook anybody can call.
#
# A value is an environment variable or, better, a file of that name in /run/secrets (SECRETS names
# another directory): what is in the environment is seen by everything that runs in the container.
set -euo pipefail

secrets=${SECRETS:-/run/secrets}

value() { # name: prints the value, nothing when there is none
  if [ -s "$secrets/$1" ]; then
    cat "$secrets/$1"
  else
    printf '%s' "${!1:-}"
  fi
}

faults=0
fault() {
  printf 'start-controller: %s\n' "$1" >&2
  faults=$((faults + 1))
}

require() { # name what-it-is
  [ -n "$(value "$1")" ] ||
    fault "$1 is missing: $2. Set it with --env $1=... or put it into the file $secrets/$1."
}

advise() { # name what-does-not-work-without
  [ -n "$(value "$1")" ] ||
    printf 'start-controller: %s is not set: %s until it is and the controller was restarted.\n' "$1" "$2" >&2
}

require JENKINS_URL 'the address that people and agents use, like https://ci.example.org/'
require ADMIN_PASSWORD 'the password of the user admin'
require AGENT_PASSWORD 'the password with which an agent fetches its secret'
require REPOSITORY_OWNER 'the GitHub user or organisation that the repository belongs to'
require REPOSITORY_NAME 'the name of the repository'
require WEBHOOK_SECRET 'the secret that signs the calls of the webhook'

for name in ADMIN_PASSWORD AGENT_PASSWORD WEBHOOK_SECRET; do
  given=$(value "$name")
  if [ -n "$given" ] && [ "${#given}" -lt 12 ]; then
    fault "$name has ${#given} characters: give it at least 12, for example \$(openssl rand -hex 16)."
  fi
done
case "$(value JENKINS_URL)" in
  '' | http://?* | https://?*) ;;
  *) fault 'JENKINS_URL must begin with http:// or https://.' ;;
esac
if [ "$faults" -gt 0 ]; then
  printf 'start-controller: nothing was started.\n' >&2
  exit 2
fi

advise GITHUB_TOKEN 'private repositories are not read, webhooks not registered, GitHub is asked rarely'
advise DOCKERHUB_USER 'no image is pushed'
advise DOCKERHUB_TOKEN 'no image is pushed'
advise KUBECONFIG_STAGING 'nothing is deployed to staging'
advise KUBECONFIG_PRODUCTION 'nothing is deployed to production'
advise COSIGN_PRIVATE_KEY 'no image is signed'
advise COSIGN_PASSWORD 'no image is signed'
advise NOTIFY_URL 'nobody is told of failures'

exec /usr/bin/tini -- "${JENKINS_START:-/usr/local/bin/jenkins.sh}" "$@"
