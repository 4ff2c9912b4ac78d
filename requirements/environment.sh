#!/bin/sh
# Builds one virtual environment, and stamps it last:
#   environment.sh .venv/.stamp-<hash> requirements/dev.txt
# An environment without the stamp that its locks ask for (stale, or interrupted half way) is built anew.
# Everything is said on stderr: stdout belongs to what runs afterwards (make demo ARGS="--output json").
set -eu
exec >&2
stamp=$1 lock=$2 env=${1%/*}

if ! "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "'$PYTHON' is not a Python of 3.11 or later: install python3.11, or name one with make PYTHON=/path/to/python3.11"
    exit 1
fi
if ! "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null; then  # Debian and Ubuntu ship these two apart
    package=$("$PYTHON" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
    echo "$PYTHON cannot make virtual environments: install the package $package (apt-get install $package)"
    exit 1
fi

exec 9<"$lock"
if command -v flock >/dev/null; then flock 9; fi  # a second make waits here, then finds the stamp
if [ -e "$stamp" ]; then exit 0; fi

pip() { "$env/bin/python" -m pip --disable-pip-version-check --no-input "$@"; }

echo "building $env from $lock (once, until a lock changes)"
rm -rf "$env"
"$PYTHON" -m venv "$env"
pip install --quiet --require-hashes --requirement "$lock"
case $env in
.venv)
    pip install --quiet --no-deps --no-build-isolation --editable .
    ;;
.venv-node)
    cp "$NODE_PACKAGE/package.json" "$NODE_PACKAGE/package-lock.json" "$env"
    # The environment's npm by its environment's node, whatever else is on the PATH.
    PATH="$PWD/$env/bin:$PATH" npm ci --prefix "$env" --ignore-scripts --no-audit --no-fund --loglevel=error
    ;;
esac
touch "$stamp"
