# Sourced by train.sh and test.sh: makes .venv with the extras named by $1, once.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

made=.venv/bin/python
[ -x $made ] || made=python3
PYTHON=${PYTHON:-$made}
want="$1 $(cat setup.py pyproject.toml constraints.txt | cksum) $("$PYTHON" --version)"
stamp=".venv/installed-${1//[^a-z]/-}"
if [ "$(cat "$stamp" 2>/dev/null)" != "$want" ]; then
  "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "impala_mp needs Python 3.11 or newer; $PYTHON is $("$PYTHON" --version):" \
      "set PYTHON=/path/to/python3.11." >&2
    exit 2
  }
  [ "$(.venv/bin/python --version 2>&1)" = "$("$PYTHON" --version)" ] ||
    "$PYTHON" -m venv --clear .venv
  echo "Installing into .venv (once)..."
  .venv/bin/python -m pip install -q -c constraints.txt -e ".${1:+[$1]}"
  echo "$want" >"$stamp"
fi
