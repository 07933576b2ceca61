#!/usr/bin/env bash
set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

usage() {
  cat <<'END'
launch/gke.sh [--help | --dry-run] ARGUMENTS OF flashjax

A JobSet on a GKE cluster with TPU node pools, from launch/jobset.yaml, by the kubectl of the current context. The
JobSet controller starts all pods again when one ends, also one that waited for others in vain (status 77: their nodes
may still be looked for), but for an error that somebody has to mend: status 1 or 2, and 134 of a pod without others.
Given again, it goes on with a run whose JobSet has ended: that is deleted first. One that has not ended is left alone.

    FLASHJAX_NAME=mine FLASHJAX_IMAGE=eu.gcr.io/me/flashjax FLASHJAX_ACCELERATOR=tpu-v6e-slice \
      FLASHJAX_TOPOLOGY=4x4 FLASHJAX_HOSTS=4 \
      launch/gke.sh train --config=configs/postcards.py --workdir=/mnt/run --config.batch_size=64 \
      --config.sources.prompts.path=/mnt/prompts/train.arrayrecord --config.init=

The claim holds the prompts, which flashjax prepare --out /mnt/prompts --split train --count 16000 --prompts-only makes.
The batch has to divide over all chips.

  --dry-run             print the manifest, and the commands as its comments; run none of them
  FLASHJAX_NAME         name of the JobSet (needed)
  FLASHJAX_IMAGE        image made of launch/Dockerfile (needed)
  FLASHJAX_ACCELERATOR  cloud.google.com/gke-tpu-accelerator of the nodes (needed)
  FLASHJAX_TOPOLOGY     cloud.google.com/gke-tpu-topology of the nodes (needed)
  FLASHJAX_HOSTS        nodes of a slice (default: 1)
  FLASHJAX_CHIPS        chips of a node (default: 4)
  FLASHJAX_SLICES       slices (default: 1)
  FLASHJAX_CLAIM        a PersistentVolumeClaim that all pods mount at /mnt, for data and workdir (default: run)
  FLASHJAX_GRACE        seconds that a pod which is told to stop may save in; spot nodes have some 30 s, whatever this
                        says (default: 300)
  FLASHJAX_RESTARTS     how often the JobSet may be started again (default: 100)
  FLASHJAX_WAIT         seconds that processes wait for each other at the start (default: 600)
  FLASHJAX_PORT         port of process 0, by which processes meet (default: 8476)
  JAX_COMPILATION_CACHE_DIR, XLA_FLAGS, LIBTPU_INIT_ARGS: the pods have them where they are set
END
}

# quoted TEXT: as JSON, which is YAML. Kubernetes reads $(NAME) in it as a variable, and $$ as one $. By sed: bashes differ
# in what quotes and backslashes within ${text//old/new} mean.
quoted() {
  printf '"%s"' "$(printf '%s' "$1" | sed -e 's/[\\"]/\\&/g' -e 's/\$/$$/g')"
}

# The arguments as a list.
arguments_of_pods() {
  local argument text=""
  for argument in "${ARGS[@]}"; do
    text+="${text:+, }$(quoted "$argument")"
  done
  printf '[%s]' "$text"
}

# Each @NAME@ by the variable of that name, and nothing that stands in one of these.
filled() {
  awk '{
    while (match($0, /@[A-Z_]+@/)) {
      printf "%s%s", substr($0, 1, RSTART - 1), ENVIRON[substr($0, RSTART + 1, RLENGTH - 2)]
      $0 = substr($0, RSTART + RLENGTH)
    }
    print
  }'
}

# Slices of several nodes are a node pool each, which such a slice has to have for itself; many of one node share a pool,
# in which only one of them would be started.
annotations() {
  local own="alpha.jobset.sigs.k8s.io/exclusive-topology: cloud.google.com/gke-nodepool"
  [ "$FLASHJAX_HOSTS" -gt 1 ] || own=""
  printf '{%s}' "$own"
}

# What is set here for JAX, as further entries of the pods' env.
variables() {
  local name
  for name in $FOR_JAX; do
    [ -z "${!name:-}" ] || printf '\n                    - {name: %s, value: %s}' "$name" "$(quoted "${!name}")"
  done
}

manifest() {
  local FINAL="[1, 2]" ARGUMENTS ANNOTATIONS VARIABLES
  [ $((FLASHJAX_HOSTS * FLASHJAX_SLICES)) -gt 1 ] || FINAL="[1, 2, 134]"
  ARGUMENTS="$(arguments_of_pods)"
  ANNOTATIONS="$(annotations)"
  VARIABLES="$(variables)"
  export FINAL ARGUMENTS ANNOTATIONS VARIABLES
  filled <"$ROOT/launch/jobset.yaml"
}

# The JobSet's name and, where it has ended, how; nothing where there is none.
found() {
  run kubectl get jobset "$FLASHJAX_NAME" --ignore-not-found -o 'jsonpath={.metadata.name} {.status.terminalState}'
}

# Its pods go too, before this ends: the new ones have the same names.
discard() {
  run kubectl delete jobset "$FLASHJAX_NAME" --wait --cascade=foreground
}

# A JobSet that has ended stays, and kubectl apply would not start it again.
make_room() {
  local there
  there="$(found)" || fail "kubectl does not tell whether there is a JobSet $FLASHJAX_NAME; the lines above say why."
  case "$there" in
    "") ;;
    *" ")
      fail "The JobSet $FLASHJAX_NAME is there and has not ended: kubectl logs --follow job/$FLASHJAX_NAME-slice-0" \
        "follows it, kubectl delete jobset $FLASHJAX_NAME ends it."
      ;;
    *)
      say "the JobSet $there is deleted, and made anew"
      discard
      ;;
  esac
}

arguments "$@"
need FLASHJAX_NAME FLASHJAX_IMAGE FLASHJAX_ACCELERATOR FLASHJAX_TOPOLOGY
whole FLASHJAX_HOSTS 1 FLASHJAX_CHIPS 1 FLASHJAX_SLICES 1 FLASHJAX_GRACE 1 FLASHJAX_RESTARTS 0 FLASHJAX_WAIT 1 \
  FLASHJAX_PORT 1
: "${FLASHJAX_HOSTS:=1}" "${FLASHJAX_CHIPS:=4}" "${FLASHJAX_SLICES:=1}" "${FLASHJAX_CLAIM:=run}"
: "${FLASHJAX_GRACE:=300}" "${FLASHJAX_RESTARTS:=100}" "${FLASHJAX_WAIT:=600}" "${FLASHJAX_PORT:=8476}"
export "${!FLASHJAX_@}"
if [ "$DRY_RUN" = 1 ]; then
  printf '# %s\n' "$(found)" "where that is of one that has ended: $(discard)" "kubectl apply -f - of"
  manifest
else
  make_room
  manifest | kubectl apply -f -
fi
