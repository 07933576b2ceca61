#!/usr/bin/env bash
set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

usage() {
  cat <<'END'
launch/gke.sh [--help | --dry-run] ARGUMENTS OF flashjax

A JobSet on a GKE cluster with TPU node pools, from launch/jobset.yaml, by the kubectl of the current context. The
JobSet controller starts all pods again when one ends, also one that waited for others in vain (status 77: their nodes
may still be looked for), but for status 2, an error that somebody has to mend.

    FLASHJAX_NAME=mine FLASHJAX_IMAGE=eu.gcr.io/me/flashjax FLASHJAX_ACCELERATOR=tpu-v6e-slice \
      FLASHJAX_TOPOLOGY=4x4 FLASHJAX_HOSTS=4 launch/gke.sh train --config=configs/postcards.py --workdir=/mnt/run

  --dry-run             print the manifest, apply nothing
  FLASHJAX_NAME         name of the JobSet (needed)
  FLASHJAX_IMAGE        image made of launch/Dockerfile (needed)
  FLASHJAX_ACCELERATOR  cloud.google.com/gke-tpu-accelerator of the nodes (needed)
  FLASHJAX_TOPOLOGY     cloud.google.com/gke-tpu-topology of the nodes (needed)
  FLASHJAX_HOSTS        nodes of a slice (default: 1)
  FLASHJAX_CHIPS        chips of a node (default: 4)
  FLASHJAX_SLICES       slices (default: 1)
  FLASHJAX_CLAIM        a PersistentVolumeClaim that all pods mount at /mnt, for data and workdir (default: run)
  FLASHJAX_RESTARTS     how often the JobSet may be started again (default: 100)
  FLASHJAX_WAIT         seconds that processes wait for each other at the start (default: 600)
END
}

# The arguments as a JSON list, which is YAML.
quoted() {
  local argument text=""
  for argument in "$@"; do
    argument="${argument//\\/\\\\}"
    text+="${text:+, }\"${argument//\"/\\\"}\""
  done
  printf '[%s]' "$text"
}

manifest() {
  local text name
  text="$(cat "$ROOT/launch/jobset.yaml")"
  for name in NAME IMAGE ACCELERATOR TOPOLOGY HOSTS CHIPS SLICES CLAIM RESTARTS WAIT; do
    name="FLASHJAX_$name"
    text="${text//@$name@/"${!name}"}"
  done
  printf '%s\n' "${text//@ARGUMENTS@/"$(quoted "${ARGS[@]}")"}"
}

arguments "$@"
need FLASHJAX_NAME FLASHJAX_IMAGE FLASHJAX_ACCELERATOR FLASHJAX_TOPOLOGY
whole FLASHJAX_HOSTS 1 FLASHJAX_CHIPS 1 FLASHJAX_SLICES 1 FLASHJAX_RESTARTS 0 FLASHJAX_WAIT 1
: "${FLASHJAX_HOSTS:=1}" "${FLASHJAX_CHIPS:=4}" "${FLASHJAX_SLICES:=1}" "${FLASHJAX_CLAIM:=run}"
: "${FLASHJAX_RESTARTS:=100}" "${FLASHJAX_WAIT:=600}"
if [ "$DRY_RUN" = 1 ]; then
  manifest
else
  manifest | kubectl apply -f -
fi
