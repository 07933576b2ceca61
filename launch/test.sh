#!/usr/bin/env bash
set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

usage() {
  cat <<'END'
launch/test.sh [--help | --dry-run] [PYTEST ARGUMENTS]

Makes an environment with everything that the tests need, then runs pytest; its exit status is pytest's.

  --dry-run                print the commands, run none of them
  FLASHJAX_TEST_PROCESSES  how many run tests at once, a file each (default: 2; 0: pytest itself)
  FLASHJAX_VENV            the environment to make or use (default: .venv)
  PYTHON                   the Python to make it with (default: the first of 3.11 or 3.12 that is found)
END
}

options "$@"
cd "$ROOT"
ensure_venv test
command -v chromium >/dev/null || say "there is no chromium: the tests of reports in a browser are left out"
run "$VENV/bin/python" -m pytest -n "${FLASHJAX_TEST_PROCESSES:-2}" --dist loadfile ${ARGS[@]+"${ARGS[@]}"}
