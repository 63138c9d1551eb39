#!/bin/sh
# Runs the SDK's tests on every Python >= 3.9 that pyenv has, or on the interpreters named.
#   sh python/test-all.sh [<python>...]
# Virtual environments are kept in $CJM_TEST_VENVS, by default a folder below the user's cache.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
venvs=${CJM_TEST_VENVS:-${XDG_CACHE_HOME:-$HOME/.cache}/cjm-worker-tests}
[ $# -gt 0 ] || set -- "${PYENV_ROOT:-$HOME/.pyenv}"/versions/*/bin/python
failed=0
for python in "$@"; do
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 9))' 2>/dev/null || continue
  version=$("$python" -c 'import platform; print(platform.python_version())')
  venv=$venvs/$version
  [ -x "$venv/bin/pytest" ] || {
    "$python" -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check pytest
  }
  echo "Python $version"
  (cd "$here" && "$venv/bin/python" -m pytest -q -p no:cacheprovider) || failed=1
done
exit $failed
