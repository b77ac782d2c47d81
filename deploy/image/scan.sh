#!/usr/bin/env bash
# Scan an image for known flaws, and fail when one is found that can be mended.
#
#   scan.sh IMAGE
#
# With trivy: flaws of grade HIGH and CRITICAL for which there is a mended version (.trivyignore names
# accepted ones, each with its reason). Without it, two questions that need no scanner:
#   packages  is a security update of the base's Debian packages out? (apt, in a throw-away container)
#   python    is a flaw of the image's Python packages known?          (pip-audit)
# Each needs its source of knowledge; when that does not answer, the scan fails: not known is not good.
#
# DOCKER and PIP_AUDIT name the commands, PIP_AUDIT_ARGS more flags (`--ignore-vuln ID`, `-s osv`),
# REPORTS is a directory in which what is found is kept too, as scan/report.txt.
# ONLY=packages or ONLY=python asks one question alone.
set -euo pipefail

image=${1:?usage: scan.sh IMAGE}
if [ -n "${REPORTS:-}" ]; then
  mkdir -p "$REPORTS/scan"
  report=$REPORTS/scan/report.txt
  # An image of one of several platforms has a report of its own.
  [[ ! $image =~ :[0-9a-f]+(-dirty)?-([a-z0-9-]+)$ ]] || report=$REPORTS/scan/report-${BASH_REMATCH[2]}.txt
  # Once more, written down as well: pipefail keeps the status.
  REPORTS='' "$0" "$@" 2>&1 | tee "$report"
  exit
fi
read -r -a docker <<<"${DOCKER:-docker}"
read -r -a audit <<<"${PIP_AUDIT:-pip-audit} ${PIP_AUDIT_ARGS:-}"

stop() {
  printf 'scan: %s\n' "$*" >&2
  exit 1
}

# Inside of a container that is thrown away: root, to fetch lists; the host's network, to have one.
inside() { # command...
  "${docker[@]}" run --rm --user 0:0 --network host --entrypoint "$1" "$image" "${@:2}"
}

packages() {
  local said updates
  said=$(inside sh -ec 'apt-get update --error-on=any >/dev/null; apt-get --simulate dist-upgrade' 2>&1) ||
    stop "the packages of $image cannot be asked for: ${said##*$'\n'} Check the network; a base that is not Debian needs trivy."
  updates=$(sed -n '/^Inst .*-security/s/^Inst \([^ ]*\) \(.*\)/  \1 \2/p' <<<"$said")
  [ -z "$updates" ] ||
    stop "$image misses security updates. Build it on a newer base: make image IMAGE_ARGS=--pull"$'\n'"$updates"
  echo "packages: no security update is missing"
}

python() {
  local list
  list=$(mktemp)
  # shellcheck disable=SC2064
  trap "rm -f '$list' '$list.said'" EXIT
  # What is really in the image, not what a list says. Keyrack itself is on no list of flaws.
  inside python -c 'from importlib.metadata import distributions as all
for one in all():
    if one.name != "keyrack": print(f"{one.name}=={one.version}")' >"$list"
  [ -s "$list" ] || stop "no Python packages were found in $image. Is it Keyrack's?"
  # Strict: a package that the service knows nothing of is not counted as good.
  if ! "${audit[@]}" --strict --progress-spinner off --disable-pip --no-deps --requirement "$list" 2>"$list.said"; then
    stop "pip-audit does not pass $image: $(tail -n 1 "$list.said")"$'\n'"Flaws: raise the versions (make lock). No answer: check the network, or install trivy."
  fi
  echo "python: no flaw is known of $(wc -l <"$list") packages"
}

"${docker[@]}" image inspect "$image" >/dev/null 2>&1 ||
  stop "there is no image $image on this machine. Build it first: make image"
if [ -z "${ONLY:-}" ] && command -v trivy >/dev/null; then
  exec trivy image --exit-code 1 --severity HIGH,CRITICAL --ignore-unfixed --scanners vuln "$image"
fi
for question in ${ONLY:-packages python}; do
  "$question"
done
