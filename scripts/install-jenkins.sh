#!/usr/bin/env bash
# Set up Jenkins on this machine. Controller: Ubuntu 22.04, Debian 12, Amazon Linux 2023, or newer.
# Agent: Ubuntu 24.04, Debian 13, Amazon Linux 2023, or newer, which have Java 21 and Python 3.11.
# Run it again after something was changed: it changes only what is different.
#
#   sudo JENKINS_URL=https://ci.example.org/ scripts/install-jenkins.sh controller
#   sudo JENKINS_URL=https://ci.example.org/ scripts/install-jenkins.sh agent
#
# controller: builds the image of deploy/jenkins/ and keeps it running.
#   JENKINS_SECRETS      a directory with one file for each secret  [/etc/keyrack/secrets]
#                        (deploy/jenkins/README.md lists them)
#   JENKINS_HOME_DEVICE  a disk for the home; formatted if it is empty, and only then  [none]
#   JENKINS_HOME_DIR     where the home is, or the disk is mounted  [/var/lib/jenkins]
#   JENKINS_PORT         [443; 8080 of loopback where TLS ends elsewhere]
#   BEHIND_PROXY=1       a proxy on this machine ends TLS: plain HTTP on loopback, for the proxy
#   TLS_NAMES            more names and addresses of the certificate that the controller makes  [none]
# agent: installs what builds need and connects to the controller. Needs AGENT_PASSWORD in JENKINS_SECRETS, and
# TLS_CERTIFICATE (tls/certificate.pem of the controller's home) where no public authority signed the controller's.
#   AGENT_NAME           [docker-1]
#   JENKINS_ADDRESS      the address of the name in JENKINS_URL, where DNS tells none or another one  [none]
#   HELM_VERSION, KUBECTL_VERSION   installed where the command is missing
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
secrets=${JENKINS_SECRETS:-/etc/keyrack/secrets}
home=${JENKINS_HOME_DIR:-/var/lib/jenkins}
jenkins_uid=1000 # of the image jenkins/jenkins

stop() {
  printf 'install-jenkins: %s\n' "$*" >&2
  exit 2
}

need_secret() { # name
  [ -s "$secrets/$1" ] || stop "the secret $1 is missing. Put it into the file $secrets/$1 (deploy/jenkins/README.md lists all)."
}

put() { # path mode: writes standard input there; status 0 if that changed the file
  local new
  new=$(mktemp)
  cat >"$new"
  if cmp --silent "$new" "$1"; then
    rm "$new"
    return 1
  fi
  install -D --mode "$2" "$new" "$1"
  rm "$new"
}

packages() { # install those that are missing: names for apt, or with Amazon Linux for dnf
  if command -v dnf >/dev/null; then
    rpm --query --quiet "$@" || dnf install --quiet --assumeyes "$@"
  else
    local missing=() package
    for package; do
      dpkg-query --show --showformat '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
    done
    [ "${#missing[@]}" -eq 0 ] ||
      DEBIAN_FRONTEND=noninteractive apt-get install --quiet=2 --yes --no-install-recommends "${missing[@]}" </dev/null
  fi
}

# --- controller

mount_home() {
  mkdir -p "$home"
  if [ -n "${JENKINS_HOME_DEVICE:-}" ]; then
    local device kind status=0
    device=$(readlink -f "$JENKINS_HOME_DEVICE")
    [ -b "$device" ] || stop "JENKINS_HOME_DEVICE=$JENKINS_HOME_DEVICE is no disk. lsblk lists them."
    # Looks at the disk itself, not at a cache. 2 means that nothing at all was found on it.
    kind=$(blkid --probe --output value --match-tag TYPE "$device") || status=$?
    case "$kind:$status" in
      ext4:0 | xfs:0) ;;
      :2) mkfs.ext4 -q -L jenkins-home "$device" ;;
      *) stop "$JENKINS_HOME_DEVICE holds something that is no file system for a home (${kind:-partitions}). Name another disk, or empty this one: wipefs --all $device" ;;
    esac
    # nofail: a machine without its disk should still boot, to be looked at.
    local line
    line="UUID=$(blkid --probe --output value --match-tag UUID "$device") $home auto defaults,nofail 0 2"
    grep -qxF "$line" /etc/fstab 2>/dev/null || printf '%s\n' "$line" >>/etc/fstab
    mountpoint --quiet "$home" || mount "$device" "$home"
  fi
  chown "$jenkins_uid:$jenkins_uid" "$home"
}

start_controller() {
  local image=keyrack-jenkins wanted running tries state publish=${JENKINS_PORT:-443}:8443
  # Where TLS ends elsewhere, nobody but this machine may reach the port.
  if [ -n "${BEHIND_PROXY:-}" ] || [[ $JENKINS_URL = http://* ]]; then publish=127.0.0.1:${JENKINS_PORT:-8080}:8080; fi
  DOCKER_BUILDKIT=1 docker build --quiet --tag "$image" "$here/../deploy/jenkins" >/dev/null
  # Of everything that the container is made from; when it is the same, the container stays.
  wanted=$({
    docker image inspect --format '{{.Id}}' "$image"
    printf '%s\n' "$JENKINS_URL" "$home" "$publish" "${BEHIND_PROXY:-}" "${TLS_NAMES:-}"
    find "$secrets" -type f -not -name '.*' | sort | xargs sha256sum
  } | sha256sum | cut -c 1-64)
  running=$(docker inspect --format '{{.State.Running}} {{index .Config.Labels "keyrack.settings"}}' jenkins 2>/dev/null || true)
  if [ "$running" != "true $wanted" ]; then
    docker stop --time 60 jenkins >/dev/null 2>&1 || true
    docker rm --force jenkins >/dev/null 2>&1 || true
    docker run --detach --name jenkins --restart unless-stopped --label "keyrack.settings=$wanted" \
      --publish "$publish" --env "JENKINS_URL=$JENKINS_URL" \
      --env "BEHIND_PROXY=${BEHIND_PROXY:-}" --env "TLS_NAMES=${TLS_NAMES:-}" \
      --volume "$home:/var/jenkins_home" --volume "$secrets:/run/secrets:ro" "$image" >/dev/null
  fi
  for ((tries = 0; tries < 150; tries++)); do
    state=$(docker inspect --format '{{.RestartCount}} {{.State.Running}}' jenkins)
    [ "$state" = "0 true" ] || {
      docker stop jenkins >/dev/null
      stop "the controller ends as soon as it is started: $(docker logs --tail 5 jenkins 2>&1)"
    }
    if docker exec jenkins curl --fail --silent --output /dev/null http://127.0.0.1:8080/login; then
      echo "Jenkins answers at $JENKINS_URL (${publish%:*} of this machine)."
      return
    fi
    sleep 2
  done
  stop "the controller does not answer after five minutes. See: docker logs jenkins"
}

controller() {
  [ -f "$here/../deploy/jenkins/Dockerfile" ] || stop "$here/../deploy/jenkins is missing: take the whole repository."
  need_secret ADMIN_PASSWORD
  "$here/install-docker.sh"
  mount_home
  # The container's user has to read them, and nobody else.
  chown --recursive "$jenkins_uid:$jenkins_uid" "$secrets"
  chmod -R u=rwX,go= "$secrets"
  start_controller
}

# --- agent

java_is_new() { java -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p' | grep -qE '^(2[1-9]|[3-9][0-9])$'; }

fetch() { # url sum-url destination: a file, but only if its checksum is right
  local sum
  curl --fail --silent --show-error --location --retry 3 --output "$3" "$1"
  sum=$(curl --fail --silent --show-error --location --retry 3 "$2" | cut -d ' ' -f 1)
  echo "$sum  $3" | sha256sum --check --quiet || stop "the checksum of $1 is wrong: nothing of it was installed."
}

java_21() { # before anything else is installed: a release without it cannot be an agent
  ! command -v dnf >/dev/null || return 0
  [ -n "$(find /var/lib/apt/lists -name '*_Packages*' -mmin -1440 2>/dev/null | head -n 1)" ] || apt-get update --quiet=2
  java_is_new || [ -n "$(apt-cache show openjdk-21-jre-headless 2>/dev/null)" ] ||
    stop "an agent needs Java 21, and this release has no package of it. Use Debian 13, Ubuntu 24.04 or Amazon Linux 2023, or install a Java 21 first. Nothing was installed."
}

install_tools() {
  local machine work
  if command -v dnf >/dev/null; then
    packages git make tar gzip findutils shadow-utils python3.11 java-21-amazon-corretto-headless
  else
    packages git make curl ca-certificates python3 python3-venv
    java_is_new || packages openjdk-21-jre-headless
  fi
  machine=$(uname -m | sed 's/x86_64/amd64/; s/aarch64/arm64/')
  work=$(mktemp -d)
  if ! command -v helm >/dev/null; then
    local name=helm-${HELM_VERSION:-v4.2.3}-linux-$machine.tar.gz
    fetch "${HELM_SITE:-https://get.helm.sh}/$name" "${HELM_SITE:-https://get.helm.sh}/$name.sha256sum" "$work/helm.tar.gz"
    tar -xzf "$work/helm.tar.gz" -C "$work"
    install "$work/linux-$machine/helm" /usr/local/bin/helm
  fi
  if ! command -v kubectl >/dev/null; then
    local url=${KUBECTL_SITE:-https://dl.k8s.io}/release/${KUBECTL_VERSION:-v1.36.1}/bin/linux/$machine/kubectl
    fetch "$url" "$url.sha256" "$work/kubectl"
    install "$work/kubectl" /usr/local/bin/kubectl
  fi
  rm -rf "$work"
}

new_python() { # prints the first that can run Keyrack; the python3 of Amazon Linux is too old
  local python
  for python in python3 python3.13 python3.12 python3.11; do
    ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { echo "$python"; return; }
  done
  stop "an agent needs Python 3.11 or newer, and this release has none. Use Debian 13, Ubuntu 24.04 or Amazon Linux 2023."
}

agent() {
  local name=${AGENT_NAME:-docker-1} directory=/var/lib/jenkins-agent python changed=no trusted='' host
  need_secret AGENT_PASSWORD
  java_21
  "$here/install-docker.sh"
  install_tools
  id jenkins-agent >/dev/null 2>&1 || useradd --system --create-home --home-dir "$directory" --shell /bin/bash jenkins-agent
  id -nG jenkins-agent | grep -qw docker || usermod --append --groups docker jenkins-agent
  python=$(new_python)
  if [ -n "${JENKINS_ADDRESS:-}" ]; then
    host=$(sed -E 's|^[a-z]+://([^/:]*).*|\1|' <<<"$JENKINS_URL")
    # Written anew, not moved: in a container the file is mounted.
    { sed '/ # install-jenkins$/d' /etc/hosts; printf '%s %s # install-jenkins\n' "$JENKINS_ADDRESS" "$host"; } >/etc/hosts.new
    cmp --silent /etc/hosts.new /etc/hosts || cat /etc/hosts.new >/etc/hosts
    rm /etc/hosts.new
  fi
  [ ! -s "$secrets/TLS_CERTIFICATE" ] || trusted=$'\n'LoadCredential=TLS_CERTIFICATE:$secrets/TLS_CERTIFICATE
  # Program and secret are fetched at every start: a controller that was made anew has others.
  put /usr/local/lib/keyrack/jenkins-agent 0755 <<'START' && changed=yes
#!/usr/bin/env bash
# Made by install-jenkins.sh: connect this machine to the controller as AGENT_NAME.
set -euo pipefail
cd "$RUNTIME_DIRECTORY"
trust=() options=()
if [ -s "$CREDENTIALS_DIRECTORY/TLS_CERTIFICATE" ]; then
  # This one and no other; by Java's own settings, which hold for WebSocket too.
  rm -f trusted
  keytool -importcert -noprompt -keystore trusted -storepass changeit -file "$CREDENTIALS_DIRECTORY/TLS_CERTIFICATE" 2>/dev/null
  trust=(--cacert "$CREDENTIALS_DIRECTORY/TLS_CERTIFICATE")
  options=("-Djavax.net.ssl.trustStore=$PWD/trusted" -Djavax.net.ssl.trustStorePassword=changeit)
fi
curl "${trust[@]}" --fail --silent --show-error --output agent.jar "$JENKINS_URL/jnlpJars/agent.jar"
# In a file, because every user sees the words of a command.
printf 'user = "agent:%s"\n' "$(sed 's/["\\]/\\&/g' "$CREDENTIALS_DIRECTORY/AGENT_PASSWORD")" |
  curl "${trust[@]}" --config - --fail --silent --show-error "$JENKINS_URL/computer/$AGENT_NAME/jenkins-agent.jnlp" |
  sed -n 's/.*<argument>\([0-9a-f]\{64\}\)<\/argument>.*/\1/p' >secret
[ -s secret ] || { echo "$JENKINS_URL knows no agent $AGENT_NAME" >&2; exit 1; }
exec java "${options[@]}" -jar agent.jar -url "$JENKINS_URL/" -name "$AGENT_NAME" -secret @secret -webSocket -workDir "$HOME"
START
  put /etc/systemd/system/jenkins-agent.service 0644 <<UNIT && changed=yes
# Made by install-jenkins.sh.
[Unit]
Description=Jenkins agent $name
Wants=network-online.target
After=network-online.target docker.service

[Service]
User=jenkins-agent
Environment=JENKINS_URL=${JENKINS_URL%/} AGENT_NAME=$name HOME=$directory PYTHON=$python
LoadCredential=AGENT_PASSWORD:$secrets/AGENT_PASSWORD$trusted
RuntimeDirectory=jenkins-agent
RuntimeDirectoryMode=0700
WorkingDirectory=$directory
ExecStart=/usr/local/lib/keyrack/jenkins-agent
Restart=always
RestartSec=10

[Install]
WantedBy=multi-user.target
UNIT
  if [ ! -d /run/systemd/system ]; then
    echo "systemd does not run here: the agent starts at the next boot with it."
    return
  fi
  systemctl daemon-reload
  systemctl enable --quiet --now jenkins-agent
  [ "$changed" = no ] || systemctl restart jenkins-agent
  echo "The agent $name connects to $JENKINS_URL. See: journalctl --unit jenkins-agent"
}

[ "$(id -u)" = 0 ] || stop "this changes the system: run it with sudo."
case "${JENKINS_URL:-}" in
  https://?* | http://localhost[:/]* | http://127.0.0.1[:/]* | 'http://[::1]'*) ;;
  http://?*) stop "JENKINS_URL='$JENKINS_URL' is plain HTTP, so passwords would pass in the clear. Use https://, which the controller answers by itself." ;;
  *) stop "JENKINS_URL='${JENKINS_URL:-}' is no address like https://ci.example.org/" ;;
esac
case "${1:-}" in
  controller | agent) "$1" ;;
  *) stop "say what this machine is to be: controller or agent." ;;
esac
