#!/usr/bin/env bash
set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
# shellcheck source=launch/gcloud.sh
source "$(dirname "${BASH_SOURCE[0]}")/gcloud.sh"

usage() {
  cat <<'END'
launch/tpu_vm.sh [--help | --dry-run] ARGUMENTS OF flashjax | --follow | --stop

All workers of one TPU VM that exists: uploads what is committed here, installs it, runs it, and shows what it prints.
The run goes on when this script ends. --workdir and the data have to lie on a disk that all workers share (a mounted
bucket or Filestore): flashjax prepare --out /mnt/prompts --split train --count 16000 --prompts-only makes what is read
below. The batch has to divide over all chips.

    FLASHJAX_NAME=mine FLASHJAX_ZONE=us-east5-a \
      launch/tpu_vm.sh train --config=configs/postcards.py --workdir=/mnt/run --config.batch_size=64 \
      --config.sources.prompts.path=/mnt/prompts/train.arrayrecord --config.init=

  --follow           show what the run that is there prints, until it ends; the status is the run's
  --stop             tell it to save and to leave, and wait until it has
  --dry-run          print the commands, run none of them
  FLASHJAX_PAUSE     seconds before a broken connection is made again (default: 60)
  FLASHJAX_NAME      name of the TPU VM (needed)
  FLASHJAX_ZONE      its zone (needed)
  FLASHJAX_PROJECT   its project (default: gcloud's own)
END
  worker_variables
}

arguments "$@"
need FLASHJAX_NAME FLASHJAX_ZONE
at_once "$FLASHJAX_NAME" "${ARGS[@]}"
