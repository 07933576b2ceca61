#!/usr/bin/env bash
set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
# shellcheck source=launch/gcloud.sh
source "$(dirname "${BASH_SOURCE[0]}")/gcloud.sh"

usage() {
  cat <<'END'
launch/tpu_multislice.sh [--help | --dry-run] ARGUMENTS OF flashjax | --follow | --stop

Several TPU slices as one run, joined by the data centre's network: a queued resource of FLASHJAX_SLICES nodes, NAME-0,
NAME-1, ... Else as launch/tpu_queued.sh. Data goes from slice to slice: --config.mesh.data=4 --config.mesh.fsdp=-1 holds
the whole state in each of four slices, --config.mesh.data=1 --config.mesh.fsdp=-1 divides it over all of them.

    FLASHJAX_NAME=mine FLASHJAX_ZONE=us-east5-a FLASHJAX_TPU=v6e-16 FLASHJAX_SLICES=4 \
      launch/tpu_multislice.sh train --config=configs/postcards.py --workdir=/mnt/run --config.batch_size=64 \
      --config.sources.prompts.path=/mnt/prompts/train.arrayrecord --config.init= \
      --config.mesh.data=4 --config.mesh.fsdp=-1

  --follow           show what the run that is there prints, until it ends, and ask for nothing
  --stop             tell it to save and to leave, and wait until it has
  --dry-run          print the commands, run none of them
  FLASHJAX_SLICES    how many slices, two or more (default: 2)
  FLASHJAX_NAME      name of the queued resource, and of its nodes in front of -0, -1, ... (needed)
  FLASHJAX_ZONE      its zone (needed)
  FLASHJAX_PROJECT   its project (default: gcloud's own)
  FLASHJAX_TPU       accelerator type of a slice, v6e-16 for example (needed)
END
  queue_variables
}

arguments "$@"
need FLASHJAX_NAME FLASHJAX_ZONE FLASHJAX_TPU
[ "${FLASHJAX_SLICES:-2}" != 1 ] || fail "FLASHJAX_SLICES is 1; a single slice is for launch/tpu_queued.sh to ask for."
whole FLASHJAX_SLICES 2
nodes=""
for ((i = 0; i < ${FLASHJAX_SLICES:-2}; i++)); do
  nodes+="$FLASHJAX_NAME-$i "
done
queued "$FLASHJAX_NAME" "--node-count=${FLASHJAX_SLICES:-2} --node-prefix=$FLASHJAX_NAME" "$nodes" "${ARGS[@]}"
