#!/usr/bin/env bash
set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

usage() {
  cat <<'END'
launch/quickstart.sh [--help | --dry-run]

Distils the postcards' teacher, which comes with the repository, into a four-step student on this computer's CPU
(or its GPU, if jax finds one), then measures both: runs/quickstart/report.html.
Started again after an interruption it goes on where it stopped.

  --dry-run       print the commands, run none of them
  FLASHJAX_VENV   the environment to make or use (default: .venv)
  PYTHON          the Python to make it with (default: the first of 3.11 or 3.12 that is found)
END
}

case "${1:-}" in
  "") ;;
  -h | --help)
    usage
    exit 0
    ;;
  --dry-run) DRY_RUN=1 ;;
  *) fail "$1 is not understood; see launch/quickstart.sh --help." ;;
esac

flashjax() {
  run "$VENV/bin/flashjax" "$@"
}

cd "$ROOT"
report=runs/quickstart/report.html
if [ "$DRY_RUN" = 0 ] && [ -e "$report" ]; then
  say "$ROOT/$report is there already; delete runs/quickstart and runs/quickstart_trajectory to do it all again."
  exit 0
fi
# Compiled programs are kept: a second start, or a continued one, does not compile again.
export JAX_COMPILATION_CACHE_DIR="${JAX_COMPILATION_CACHE_DIR:-$ROOT/.cache/jax}"
SECONDS=0

ensure_venv postcards
say "1/5 prompts to distil from"
flashjax prepare --out data/quickstart --split train --count 1500 --prompts-only
say "2/5 held-out postcards to measure on"
flashjax prepare --out data/quickstart --split heldout --count 100
say "3/5 four steps along the teacher's trajectory"
flashjax train --config=configs/postcards_trajectory.py:quick --workdir=runs/quickstart_trajectory
say "4/5 distribution matching"
flashjax train --config=configs/postcards.py:quick --workdir=runs/quickstart
say "5/5 evaluation"
flashjax evaluate --workdir runs/quickstart --teacher weights/postcards_teacher \
  --data data/quickstart/heldout.arrayrecord --out "$report"
say "done in $(((SECONDS + 30) / 60)) minutes; the report is $ROOT/$report"
