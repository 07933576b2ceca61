#!/usr/bin/env bash
set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
# shellcheck source=launch/gcloud.sh
source "$(dirname "${BASH_SOURCE[0]}")/gcloud.sh"

usage() {
  cat <<'END'
launch/tpu_vm.sh [--help | --dry-run] ARGUMENTS OF flashjax

All workers of one TPU VM that exists: uploads what is committed here, installs it, runs it. --workdir and the data
have to lie on a disk that all workers share (a mounted bucket or Filestore).

    FLASHJAX_NAME=mine FLASHJAX_ZONE=us-east5-a launch/tpu_vm.sh train --config=configs/postcards.py --workdir=/mnt/run

  --dry-run          print the commands, run none of them
  FLASHJAX_NAME      name of the TPU VM (needed)
  FLASHJAX_ZONE      its zone (needed)
  FLASHJAX_PROJECT   its project (default: gcloud's own)
END
  worker_variables
}

arguments "$@"
need FLASHJAX_NAME FLASHJAX_ZONE
upload "$FLASHJAX_NAME"
on_workers "$FLASHJAX_NAME" "${ARGS[@]}"
