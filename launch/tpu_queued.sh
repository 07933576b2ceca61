#!/usr/bin/env bash
set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
# shellcheck source=launch/gcloud.sh
source "$(dirname "${BASH_SOURCE[0]}")/gcloud.sh"

usage() {
  cat <<'END'
launch/tpu_queued.sh [--help | --dry-run] ARGUMENTS OF flashjax | --follow | --stop

Asks for a TPU slice as a queued resource, waits for it, and runs on all its workers. Where its machines are taken away
they are asked for again, and the run goes on from its newest checkpoint. The run goes on when this script ends; started
again it follows the run, on the slice that it has asked for before. The slice is kept at the end; delete it with gcloud
compute tpus queued-resources delete. Data and --workdir lie where launch/tpu_vm.sh --help says.

    FLASHJAX_NAME=mine FLASHJAX_ZONE=us-east5-a FLASHJAX_TPU=v6e-16 FLASHJAX_SPOT=1 \
      launch/tpu_queued.sh train --config=configs/postcards.py --workdir=/mnt/run --config.batch_size=64 \
      --config.sources.prompts.path=/mnt/prompts/train.arrayrecord --config.init=

  --follow           show what the run that is there prints, until it ends, and ask for nothing
  --stop             tell it to save and to leave, and wait until it has
  --dry-run          print the commands, run none of them
  FLASHJAX_NAME      name of the queued resource and of its TPU VM (needed)
  FLASHJAX_ZONE      its zone (needed)
  FLASHJAX_PROJECT   its project (default: gcloud's own)
  FLASHJAX_TPU       accelerator type, v6e-16 for example (needed)
END
  queue_variables
}

arguments "$@"
need FLASHJAX_NAME FLASHJAX_ZONE FLASHJAX_TPU
queued "$FLASHJAX_NAME" "--node-id=$FLASHJAX_NAME" "$FLASHJAX_NAME" "${ARGS[@]}"
