#!/usr/bin/env bash
# Hold the plugins that were downloaded against each other, by their own manifests: Jenkins does not start a
# plugin that lacks what it asks for, and says so only in its log.
#
#   check-plugins.sh CORE [PLUGINS_TXT [DIRECTORY]]     CORE is the version of Jenkins
#
#   - each that is in plugins.txt is there in that very version: nothing raised it by the way
#   - what a plugin needs is there, at least as new as it asks for; an optional one only if it is there
#   - none asks for a newer core
set -euo pipefail

core=${1:?usage: check-plugins.sh CORE [PLUGINS_TXT [DIRECTORY]]}
list=${2:-/usr/share/jenkins/ref/plugins.txt}
directory=${3:-/usr/share/jenkins/ref/plugins}

faults=0
fault() {
  printf 'check-plugins: %s\n' "$1" >&2
  faults=$((faults + 1))
}

older() { # a b: is a older than b?
  [ "$1" != "$2" ] && [ "$(printf '%s\n' "$1" "$2" | sort --version-sort | head -n 1)" = "$1" ]
}

# A line of a manifest goes on in the next where that begins with a space.
manifest() { # file: NAME VERSION CORE DEPENDENCIES, separated by |
  unzip -p "$1" META-INF/MANIFEST.MF | awk '
    function keep() { if (match(line, /^[A-Za-z-]+: /)) of[substr(line, 1, RLENGTH - 2)] = substr(line, RLENGTH + 1) }
    { sub(/\r$/, "") }
    /^ / { line = line substr($0, 2); next }
    { keep(); line = $0 }
    END { keep(); print of["Short-Name"] "|" of["Plugin-Version"] "|" of["Jenkins-Version"] "|" of["Plugin-Dependencies"] }'
}

declare -A versions=() cores=() needs=()
for file in "$directory"/*.[jh]pi; do
  [ -e "$file" ] || break
  IFS='|' read -r name version asked dependencies < <(manifest "$file")
  [ -n "$name" ] || { fault "$file has no manifest of a plugin."; continue; }
  # A plugin that was built by hand has more words after its version.
  versions[$name]=${version%% *} cores[$name]=$asked needs[$name]=$dependencies
done

while IFS=: read -r name version; do
  [[ $name =~ ^[a-z0-9_-]+$ ]] || continue
  if [ -z "${versions[$name]:-}" ]; then
    fault "$name is in plugins.txt and was not downloaded."
  elif [ "${versions[$name]}" != "$version" ]; then
    fault "$name is ${versions[$name]}, and plugins.txt says $version: write the version that is needed there."
  fi
done <"$list"

for name in "${!versions[@]}"; do
  ! older "$core" "${cores[$name]:-0}" || fault "$name ${versions[$name]} needs Jenkins ${cores[$name]}, and this is $core."
  IFS=, read -r -a dependencies <<<"${needs[$name]}"
  for dependency in "${dependencies[@]}"; do
    needed=${dependency%%:*} least=${dependency#*:}
    least=${least%%;*}
    if [ -z "${versions[$needed]:-}" ]; then
      [[ $dependency = *resolution:=optional* ]] || fault "$name ${versions[$name]} needs $needed $least, which is not there."
    elif older "${versions[$needed]}" "$least"; then
      fault "$name ${versions[$name]} needs $needed $least or newer, and it is ${versions[$needed]}."
    fi
  done
done

[ "$faults" -eq 0 ] || exit 1
printf 'check-plugins: %d plugins have what they ask for of each other and of Jenkins %s\n' "${#versions[@]}" "$core"
