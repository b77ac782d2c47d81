#!/usr/bin/env bash
# Make room on an agent, of what this project's builds left there and nobody used for a while:
#   images      Keyrack's own, by their label, that no container runs and that are older than KEEP_DAYS [14]
#   build cache what no build used for as long
#   workspaces  of branches and pull requests that were not built for as long (WORKSPACE is Jenkins' variable)
#   virtualenvs of this checkout that were made more than VENV_DAYS [7] ago: a new one has nothing left over
# What is used now is never removed, and what others have on the machine neither. ROOM [10] is how many GB should
# be free afterwards; less is said.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
# shellcheck source=scripts/pipeline-lib.sh
. scripts/pipeline-lib.sh

days=${KEEP_DAYS:-14}
hours=$((days * 24))h
status=0

if command -v docker >/dev/null; then
  # The label is that of the Dockerfile. Without --all only those would go that have no name.
  docker image prune --all --force --filter "label=org.opencontainers.image.title=Keyrack" --filter "until=$hours" | tail -n 1 || status=1
  docker builder prune --force --filter "until=$hours" | tail -n 1 || status=1
fi

# A directory is as old as the last file that was made or removed right in it; every build does that.
if [[ ${WORKSPACE:-} = */workspace/* && -d $WORKSPACE ]]; then
  find "${WORKSPACE%/*}" -mindepth 1 -maxdepth 1 -type d -mtime "+$days" ! -path "$WORKSPACE" ! -path "$WORKSPACE@*" \
    -print -exec rm -rf {} + | sed 's|.*/|removed the workspace |' || status=1
fi

# The stamp that make leaves says when an environment was made.
while IFS= read -r stamp; do
  rm -rf "${stamp%/*}" || status=1
  say "removed the environment ${stamp%/*}: the next build makes it anew"
done < <(find .venv .delivery -maxdepth 2 -type f \( -name .dev -o -name .ready -o -name .installed \) -mtime "+${VENV_DAYS:-7}" 2>/dev/null)

free=$(df --output=avail --block-size=1G . | tail -n 1)
[ "$free" -ge "${ROOM:-10}" ] || say "only ${free// /} GB are free on this machine: less than ${ROOM:-10} GB, and what could be removed is gone"
exit "$status"
