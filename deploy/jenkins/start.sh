#!/usr/bin/env bash
# Start the controller, but only with what it needs. Jenkins would put an empty string where a
# variable of jenkins.yaml is missing: an administrator without password, a webhook anybody can call.
#
# A value is an environment variable or, better, a file of that name in /run/secrets (SECRETS names
# another directory): what is in the environment is seen by everything that runs in the container.
#
# It answers HTTPS on 8443, and plain HTTP on the container's own loopback, for its health check. The
# certificate is TLS_CERTIFICATE with TLS_KEY or, without them, one that it signs itself and keeps in its home.
#   TLS_NAMES       more names and addresses for the certificate that it makes, separated by spaces
#   BEHIND_PROXY=1  a proxy on this machine ends TLS: plain HTTP on 8080, which only the proxy may reach
set -euo pipefail

secrets=${SECRETS:-/run/secrets}
home=${JENKINS_HOME:-/var/jenkins_home}
tls=$home/tls

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

# One user for each secret DEVELOPER_name: its content is the password.
mapfile -t developers < <({
  find -L "$secrets" -maxdepth 1 -type f -name 'DEVELOPER_*' -printf '%f\n' 2>/dev/null
  compgen -e DEVELOPER_
} | sort -u)
for name in "${developers[@]}"; do
  [[ ${name#DEVELOPER_} =~ ^[a-z][a-z0-9_]*$ && ! ${name#DEVELOPER_} =~ ^(admin|agent|anonymous|authenticated)$ ]] ||
    fault "$name is no name of a developer: after DEVELOPER_ come lower-case letters, digits and _, like DEVELOPER_alice."
done
approvers=$(value PRODUCTION_APPROVERS)
for name in ${approvers//,/ }; do
  [ "$name" = admin ] || [[ " ${developers[*]} " = *" DEVELOPER_$name "* ]] ||
    fault "PRODUCTION_APPROVERS names $name, who is neither admin nor a developer (there is no DEVELOPER_$name)."
done

for name in ADMIN_PASSWORD AGENT_PASSWORD WEBHOOK_SECRET "${developers[@]}"; do
  given=$(value "$name")
  if [ -n "$given" ] && [ "${#given}" -lt 12 ]; then
    fault "$name has ${#given} characters: give it at least 12, for example \$(openssl rand -hex 16)."
  fi
done

# The name in JENKINS_URL, without user, port and path; an IPv6 address without its brackets.
host=$(value JENKINS_URL | sed -E 's|^[a-z]+://([^/@]*@)?(\[([^]]*)\]\|([^/:]*)).*|\3\4|')
case "$(value JENKINS_URL)" in
  '') form=none ;;
  https://?*) form=${BEHIND_PROXY:+http} ;;
  http://?*)
    form=http
    [[ $host =~ ^(localhost|127(\.[0-9]+){3}|::1)$ ]] ||
      fault 'JENKINS_URL begins with http://, so passwords would pass in the clear. Use https://: without TLS_CERTIFICATE the controller makes a certificate itself. Where a proxy ends TLS, give its https:// address and BEHIND_PROXY=1.'
    ;;
  *)
    form=none
    fault 'JENKINS_URL must begin with https://.'
    ;;
esac

covers() { # certificate name: is it made out to that name or address?
  local kind=-checkhost
  [[ $2 =~ ^[0-9.]+$ || $2 == *:* ]] && kind=-checkip
  openssl x509 -in "$1" -noout "$kind" "$2" | grep -q 'does match'
}

check_certificate() { # certificate key: faults that would show as a broken page only
  openssl x509 -in "$1" -noout 2>/dev/null || { fault 'TLS_CERTIFICATE is no certificate in PEM form.'; return; }
  [ "$(openssl x509 -in "$1" -noout -pubkey)" = "$(openssl pkey -in "$2" -pubout 2>/dev/null)" ] ||
    fault 'TLS_KEY is not the key of TLS_CERTIFICATE (or is no key in PEM form without a passphrase).'
  openssl x509 -in "$1" -noout -checkend 0 >/dev/null ||
    fault "TLS_CERTIFICATE has expired: $(openssl x509 -in "$1" -noout -enddate)."
  covers "$1" "$host" || fault "TLS_CERTIFICATE is not made out to $host, the name in JENKINS_URL."
}

make_certificate() { # once, and again for other names: browsers and agents were told to trust it
  local name names alternatives=
  read -r -a names <<<"$host ${TLS_NAMES:-}"
  for name in "${names[@]}"; do
    if [[ $name =~ ^[0-9.]+$ || $name == *:* ]]; then name=IP:$name; else name=DNS:$name; fi
    alternatives+=${alternatives:+,}$name
  done
  [ "$(cat "$tls/names" 2>/dev/null)" != "$alternatives" ] || return 0
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -days 3650 -subj '/CN=Jenkins of Keyrack' \
    -addext "subjectAltName=$alternatives" -keyout "$tls/own.key" -out "$tls/own.pem" 2>/dev/null
  printf '%s\n' "$alternatives" >"$tls/names"
}

certificate='' key=''
before=$(umask)
if [ -z "$form" ]; then
  umask 077
  mkdir -p "$tls"
  if [ -n "$(value TLS_CERTIFICATE)$(value TLS_KEY)" ]; then
    certificate=$tls/given.pem key=$tls/given.key
    value TLS_CERTIFICATE >"$certificate"
    value TLS_KEY >"$key"
    check_certificate "$certificate" "$key"
  fi
fi
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

listen=(--httpPort=8080)
if [ -z "$form" ]; then
  if [ -z "$certificate" ]; then
    make_certificate
    certificate=$tls/own.pem key=$tls/own.key
    printf 'start-controller: TLS_CERTIFICATE is not set: the certificate is signed by this controller itself, SHA-256 %s.\n' \
      "$(openssl x509 -in "$certificate" -noout -fingerprint -sha256 | cut -d = -f 2)" >&2
  fi
  # For agents, who trust it: without those that signed it.
  (umask 022 && openssl x509 -in "$certificate" -out "$tls/certificate.pem")
  # The password keeps nothing: who may read the store may read the key beside it.
  openssl pkcs12 -export -in "$certificate" -inkey "$key" -name jenkins -passout pass:changeit -out "$tls/store.p12"
  listen+=(--httpListenAddress=127.0.0.1 --httpsPort=8443 "--httpsKeyStore=$tls/store.p12" --httpsKeyStorePassword=changeit)
fi
umask "$before"

# The configuration, with the developers in it.
users='' rights=''
for name in "${developers[@]}"; do
  id=${name#DEVELOPER_}
  users+="        - {id: $id, name: $id, password: \"\${$name}\"}"$'\n'
  rights+="        - user: {name: $id, permissions: [Overall/Read, View/Read, Job/Read, Job/Build, Job/Cancel]}"$'\n'
done
mkdir -p "$home/casc"
while IFS= read -r line; do
  case $line in
    *'# start.sh: users') printf '%s' "$users" ;;
    *'# start.sh: rights') printf '%s' "$rights" ;;
    *) printf '%s\n' "$line" ;;
  esac
done <"${CASC_TEMPLATE:-/usr/share/jenkins/casc/jenkins.yaml}" >"$home/casc/jenkins.yaml"
export CASC_JENKINS_CONFIG=$home/casc/jenkins.yaml

exec /usr/bin/tini -- "${JENKINS_START:-/usr/local/bin/jenkins.sh}" "${listen[@]}" "$@"
