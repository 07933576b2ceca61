#!/usr/bin/env bash
set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

usage() {
  cat <<'END'
launch/slurm.sh [--help | --dry-run] ARGUMENTS OF flashjax

A Slurm job on nodes with GPUs, one process a node. It saves FLASHJAX_GRACE seconds before its time is up, or when it is
preempted, and puts itself into the queue again: five times, and from then on as long as it has saved something new. How
long it may save for where it is preempted says the partition (GraceTime). The environment, --workdir and the data have
to lie on a disk that all nodes share (here /mnt): flashjax prepare --out /mnt/prompts --split train --count 16000
--prompts-only makes what is read below. The batch has to divide over all GPUs.

    FLASHJAX_NODES=4 FLASHJAX_GPUS=8 \
      launch/slurm.sh train --config=configs/postcards.py --workdir=/mnt/run --config.batch_size=64 \
      --config.sources.prompts.path=/mnt/prompts/train.arrayrecord --config.init=

  --dry-run          print the job, submit nothing
  FLASHJAX_NAME      name of the job (default: flashjax)
  FLASHJAX_NODES     how many nodes (default: 1)
  FLASHJAX_GPUS      GPUs of a node (default: 8)
  FLASHJAX_CPUS      cores of a node, for data and compiling (default: 8 a GPU; Slurm alone would give one)
  FLASHJAX_TIME      time limit (default: 24:00:00)
  FLASHJAX_GRACE     seconds to save in, before the time limit and shorter than it (default: 300)
  FLASHJAX_SBATCH    further options of sbatch, --partition=gpu for example (default: none)
  FLASHJAX_PORT      port of process 0, by which processes meet (default: 8476)
  FLASHJAX_WAIT      seconds that processes wait for each other at the start (default: 600)
  FLASHJAX_RESTARTS  how often a process may be started again within the job (default: 100)
  FLASHJAX_VENV      the environment with flashjax[cuda] in it, installed before the job: nodes that share it install
                     nothing, whatever FLASHJAX_EXTRAS says (default: .venv)
END
}

# seconds TIME: of a limit as sbatch reads it: minutes, minutes:seconds, hours:minutes:seconds, or days- in front of hours.
# 0 where there is none, or where it is for sbatch to refuse.
seconds() {
  local days="" hours="" minutes="" rest=""
  [[ "$1" =~ ^([0-9]+-)?[0-9]+(:[0-9]+){0,2}$ ]] || set -- 0
  case "$1" in
    *-*)
      days="${1%-*}"
      IFS=: read -r hours minutes rest <<<"${1#*-}"
      ;;
    *:*:*) IFS=: read -r hours minutes rest <<<"$1" ;;
    *) IFS=: read -r minutes rest <<<"$1" ;;
  esac
  printf '%s' "$((((10#${days:-0} * 24 + 10#${hours:-0}) * 60 + 10#${minutes:-0}) * 60 + 10#${rest:-0}))"
}

check_grace() {
  local limit
  limit="$(seconds "${FLASHJAX_TIME:-24:00:00}")"
  [ "$limit" = 0 ] || [ "${FLASHJAX_GRACE:-300}" -lt "$limit" ] \
    || fail "FLASHJAX_GRACE is ${FLASHJAX_GRACE:-300} s and FLASHJAX_TIME ${FLASHJAX_TIME:-24:00:00}, no longer than that: the" \
      "job would be told to stop before it has begun."
}

job() {
  local gpus=${FLASHJAX_GPUS:-8}
  local cpus=${FLASHJAX_CPUS:-$((8 * gpus))}
  local root words
  root="$(printf %q "$ROOT")"
  words="$(printf ' %q' "${ARGS[@]}")"
  cat <<END
#!/usr/bin/env bash
#SBATCH --job-name=${FLASHJAX_NAME:-flashjax}
#SBATCH --nodes=${FLASHJAX_NODES:-1}
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=$cpus
#SBATCH --gpus-per-node=$gpus
#SBATCH --time=${FLASHJAX_TIME:-24:00:00}
#SBATCH --signal=TERM@${FLASHJAX_GRACE:-300}
#SBATCH --requeue
#SBATCH --open-mode=append
cd $root
source launch/common.sh
seen="\$(newest$words)"
status=0
FLASHJAX_EXTRAS='' FLASHJAX_VENV=$(printf %q "$VENV") srun --cpus-per-task=$cpus bash $root/launch/worker.sh slurm$words || status=\$?
if [ "\$status" = 75 ] && requeues "\$seen"$words; then
  scontrol requeue "\$SLURM_JOB_ID"
fi
exit "\$status"
END
}

arguments "$@"
whole FLASHJAX_NODES 1 FLASHJAX_GPUS 1 FLASHJAX_CPUS 1 FLASHJAX_GRACE 1
check_grace
if [ "$DRY_RUN" = 1 ]; then
  job
else
  # shellcheck disable=SC2086  # options are words
  job | sbatch ${FLASHJAX_SBATCH:-}
fi
