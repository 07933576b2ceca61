#!/usr/bin/env bash
set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

usage() {
  cat <<'END'
launch/local_multi.sh [--help | --dry-run] ARGUMENTS OF flashjax

Several processes on this machine that work as one run: what a pod does, without the pod. They are started again when
one of them was told to stop (status 75), was stuck (76), or was ended by JAX as another one had gone (134), unless
five starts in a row have saved nothing new. Ctrl-C, SIGTERM and SIGHUP to this script are passed on as SIGTERM:
training saves, and that is the end.

    launch/local_multi.sh train --config=configs/postcards.py:quick --workdir=runs/quickstart

  --dry-run           print the commands, run nothing
  FLASHJAX_PROCESSES  how many processes (default: 2)
  FLASHJAX_DEVICES    faked CPU devices of each; 0: the devices that the machine has (default: 2)
  FLASHJAX_PORT       a free port, by which they meet (default: 12355)
  FLASHJAX_WAIT       seconds that they wait for each other at the start (default: 60)
  FLASHJAX_RESTARTS   how often they may be started again (default: 100)
  FLASHJAX_PAUSE      seconds before they are started again (default: 2)
  FLASHJAX_VENV       the environment with flashjax in it (default: .venv)
END
}

arguments "$@"
whole FLASHJAX_PROCESSES 1 FLASHJAX_DEVICES 0 FLASHJAX_PORT 1 FLASHJAX_RESTARTS 0
again "${FLASHJAX_PROCESSES:-2}" processes "${FLASHJAX_PROCESSES:-2}" "${FLASHJAX_DEVICES:-2}" "${ARGS[@]}"
