#!/usr/bin/env bash
set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

usage() {
  cat <<'END'
launch/worker.sh [--help | --dry-run] CLUSTER ARGUMENTS OF flashjax

Runs on every machine of a cluster, started by the scripts beside it: finds out which process of the run this machine
is, and runs flashjax; again where its status is 75 (told to stop, saved), 76 (a host was stuck) or, of several
processes, 134 (another host had gone), unless five starts in a row have saved nothing new. Ctrl-C, SIGTERM and SIGHUP
are passed on as SIGTERM: training saves, and that is the end; an installation is finished first. CLUSTER is

  tpu      a TPU VM of one slice or several: asks the metadata server
  slurm    a task of srun, one a node: SLURM_STEP_NODELIST, SLURM_NTASKS, SLURM_PROCID
  jobset   a pod of a JobSet: FLASHJAX_JOBSET, FLASHJAX_SLICES, FLASHJAX_HOSTS, JOB_INDEX, JOB_COMPLETION_INDEX
  plain    FLASHJAX_COORDINATOR, FLASHJAX_PROCESSES and FLASHJAX_PROCESS are set already

  --dry-run          print the command, run nothing
  FLASHJAX_PORT      port of process 0, by which processes meet (default: 8476)
  FLASHJAX_EXTRAS    install flashjax with these extras first, tpu,postcards for example (default: nothing)
  FLASHJAX_RESTARTS  how often it may be started again (default: 100)
  FLASHJAX_PAUSE     seconds before it is started again (default: 2)
  FLASHJAX_WAIT      seconds that processes wait for each other at the start (default: 600)
  FLASHJAX_VENV      the environment with flashjax in it (default: .venv)
END
}

metadata() {
  curl -sf -H 'Metadata-Flavor: Google' "http://metadata.google.internal/computeMetadata/v1/instance/attributes/$1"
}

# A line of tpu-env reads MEGASCALE_NUM_SLICES: '2'.
tpu_env() {
  metadata tpu-env | sed -n "s/^$1: *'\{0,1\}\([^']*\)'\{0,1\}\$/\1/p"
}

# identify HOST COUNT INDEX
identify() {
  export FLASHJAX_COORDINATOR="$1:${FLASHJAX_PORT:-8476}" FLASHJAX_PROCESSES="$2" FLASHJAX_PROCESS="$3"
}

# Endpoints are names, or name:number:address; the order is that of the workers' numbers.
tpu() {
  local index first slices
  local -a workers
  index="$(metadata agent-worker-number)" || fail "The metadata server does not say that this is a worker of a TPU VM."
  IFS=, read -r -a workers <<<"$(metadata worker-network-endpoints)"
  first="${workers[0]##*:}"
  slices="$(tpu_env MEGASCALE_NUM_SLICES)"
  if [ "${slices:-1}" -gt 1 ]; then
    first="$(tpu_env MEGASCALE_COORDINATOR_ADDRESS)"
    index=$((index + $(tpu_env MEGASCALE_SLICE_ID) * ${#workers[@]}))
  fi
  identify "${first%%:*}" $((${slices:-1} * ${#workers[@]})) "$index"
}

slurm() {
  need SLURM_STEP_NODELIST SLURM_NTASKS SLURM_PROCID
  identify "$(scontrol show hostnames "$SLURM_STEP_NODELIST" | head -n 1)" "$SLURM_NTASKS" "$SLURM_PROCID"
}

jobset() {
  need FLASHJAX_JOBSET FLASHJAX_SLICES FLASHJAX_HOSTS JOB_INDEX JOB_COMPLETION_INDEX
  identify "$FLASHJAX_JOBSET-slice-0-0.$FLASHJAX_JOBSET" $((FLASHJAX_SLICES * FLASHJAX_HOSTS)) \
    $((JOB_INDEX * FLASHJAX_HOSTS + JOB_COMPLETION_INDEX))
}

arguments "$@"
whole FLASHJAX_PORT 1 FLASHJAX_RESTARTS 0
case "${ARGS[0]}" in
  tpu | slurm | jobset) "${ARGS[0]}" ;;
  plain) ;;
  *) fail "${ARGS[0]} is no cluster; see launch/worker.sh --help." ;;
esac
export FLASHJAX_WAIT="${FLASHJAX_WAIT:-600}"
say "process ${FLASHJAX_PROCESS:-0} of ${FLASHJAX_PROCESSES:-1}, coordinator ${FLASHJAX_COORDINATOR:-none}"
cd "$ROOT"
# While pip runs it is heard when that has ended: left behind, pip would go on, and hold the lock of launch/detached.sh.
trap pass_on TERM INT HUP
[ -z "${FLASHJAX_EXTRAS:-}" ] || ensure_venv "$FLASHJAX_EXTRAS"
[ "$STOPPED" = 0 ] || exit 75
again "${FLASHJAX_PROCESSES:-1}" processes 1 0 "${ARGS[@]:1}"
