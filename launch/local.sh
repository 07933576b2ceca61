#!/usr/bin/env bash
set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

usage() {
  cat <<'END'
launch/local.sh [--help | --dry-run] ARGUMENTS OF flashjax

One process on this machine, by default with eight faked CPU devices: what a mesh does, without the mesh.
It is started again when it was told to stop (status 75) or was stuck (76), unless five starts in a row have saved
nothing new. Ctrl-C, SIGTERM and SIGHUP to this script are passed on as SIGTERM: training saves, and that is the end.

    launch/local.sh train --config=configs/postcards.py:quick --workdir=runs/quickstart

  --dry-run          print the command, run nothing
  FLASHJAX_DEVICES   faked CPU devices; 0: the devices that the machine has (default: 8)
  FLASHJAX_RESTARTS  how often it may be started again (default: 100)
  FLASHJAX_PAUSE     seconds before it is started again (default: 2)
  FLASHJAX_VENV      the environment with flashjax in it (default: .venv)
END
}

arguments "$@"
whole FLASHJAX_DEVICES 0 FLASHJAX_RESTARTS 0
again 1 processes 1 "${FLASHJAX_DEVICES:-8}" "${ARGS[@]}"
