#!/bin/sh
# Run each adapter through its framework's own tests, against a service that is started for it.
#
# The frameworks and the source distributions with their tests are fetched into .delivery/adapters,
# in the versions of requirements/adapters.txt. PYTHON is a Python with Keyrack's test requirements.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-$root/.venv/bin/python}
home=$root/.delivery/adapters
pip="$home/venv/bin/python -m pip --disable-pip-version-check --quiet"
stamp=$home/.installed

if [ ! -e "$stamp" ] || [ -n "$(find "$root"/requirements/adapters*.txt -newer "$stamp")" ]; then
    mkdir -p "$home"
    "$python" -m venv --clear "$home/venv"
    $pip install --require-hashes -r "$root/requirements/adapters.txt"
    rm -rf "$home/suites"
    # Source distributions only: the wheels have no tests. Nothing is built.
    $pip download --no-deps --no-binary :all: --no-build-isolation --require-hashes \
        -r "$root/requirements/adapters-suites.txt" -d "$home/suites"
    for archive in "$home"/suites/*.tar.gz; do
        tar -xzf "$archive" -C "$home/suites"
    done
    touch "$stamp"
fi

cd "$root"
KEYRACK_ADAPTERS=$home exec "$python" -m pytest tests/adapters "$@"
