# shellcheck shell=bash
# Sourced by the tpu_*.sh scripts, after common.sh: TPU VMs by gcloud.

ZONE="${FLASHJAX_ZONE:-}"
PROJECT="${FLASHJAX_PROJECT:-}"

# What the usage of every script ends with, and in front of it of those that ask for a queued resource.
worker_variables() {
  cat <<'END'
  FLASHJAX_EXTRAS    what the workers install of flashjax (default: tpu,postcards)
  PYTHON             the Python that they make it with, 3.11 or 3.12 (default: the first that is found)
  FLASHJAX_RESTARTS  how often a worker may start it again (default: 100)
  FLASHJAX_WAIT      seconds that processes wait for each other at the start (default: 600)
  FLASHJAX_PORT      port of process 0, by which processes meet (default: 8476)
  JAX_COMPILATION_CACHE_DIR, XLA_FLAGS, LIBTPU_INIT_ARGS: the workers have them where they are set
END
}

queue_variables() {
  cat <<'END'
  FLASHJAX_RUNTIME   runtime version (default: v2-alpha-tpuv6e)
  FLASHJAX_SPOT      1: spot machines, cheap, and taken away at any time some 30 s after they were told (default: 0)
  FLASHJAX_PAUSE     seconds between two looks at the queue, and before a broken connection is made again (default: 60)
END
  worker_variables
}

# tpus GROUP COMMAND ...: gcloud compute tpus GROUP COMMAND ... in the zone and project.
tpus() {
  run gcloud compute tpus "$@" --zone="$ZONE" ${PROJECT:+--project="$PROJECT"}
}

# on NODE COMMAND: on all its workers, at once; the status is that of the first worker that fails. A connection that broke
# gcloud makes anew by itself, ten times, with the same command, so every command may come twice.
on() {
  tpus tpu-vm ssh "$1" --worker=all --quiet --ssh-flag=-oServerAliveInterval=30 --command="$2"
}

# Of this launch alone: another one, from another checkout or of another person, would write over it.
UPLOADS="$(mktemp -d)"
ARCHIVE="$UPLOADS/flashjax.tgz"
trap 'rm -rf "$UPLOADS"' EXIT
BUSY=3 # a run is on it, whose code stays as it is

# upload NODE: the archive, unpacked on all workers on which nothing runs, in place of the code that was there: a file that
# is no longer in it would be code on one worker and not on another. What is beside the code, .venv for one, stays.
upload() {
  tpus tpu-vm scp "$ARCHIVE" "$1:flashjax.tgz" --worker=all --quiet \
    && on "$1" "mkdir -p flashjax flashjax_run && \
(flock --nonblock --conflict-exit-code $BUSY 9 && rm -rf flashjax/flashjax flashjax/configs flashjax/launch && \
tar -xzf flashjax.tgz -C flashjax) 9>>flashjax_run/lock"
}

# start NODE ARG ...: launch/worker.sh in the background of all workers.
start() {
  local node="$1" name settings=""
  shift
  export FLASHJAX_EXTRAS="${FLASHJAX_EXTRAS:-tpu,postcards}"
  for name in PYTHON FLASHJAX_EXTRAS FLASHJAX_RESTARTS FLASHJAX_WAIT FLASHJAX_PORT $FOR_JAX; do
    [ -z "${!name:-}" ] || settings+="$(printf '%s=%q ' "$name" "${!name}")"
  done
  on "$node" "cd flashjax && ${settings}bash launch/detached.sh start tpu$(printf ' %q' "$@")"
}

# follow NODE: until the run ends; its status. The run goes on without a connection (255), which is made again.
follow() {
  local status tries=0 began
  while true; do
    began="$SECONDS"
    status=0
    on "$1" "bash flashjax/launch/detached.sh follow" || status=$?
    [ "$status" = 255 ] || return "$status"
    [ $((SECONDS - began)) -lt 300 ] || tries=0 # it had held
    tries=$((tries + 1))
    [ "$tries" -lt 5 ] || return 255
    say "no connection to $1; the run goes on there, trying again"
    sleep "${FLASHJAX_PAUSE:-60}"
  done
}

# attend NODE ARG ...: uploads, starts, follows. Where the same run is on already, it is followed.
attend() {
  local node="$1" status=0
  shift
  upload "$node" || status=$?
  [ "$status" = 0 ] || [ "$status" = "$BUSY" ] || return "$status"
  start "$node" "$@" && follow "$node"
}

# end NODE: tells the run to save and to leave, and waits until it has.
end() {
  on "$1" "bash flashjax/launch/detached.sh stop" && follow "$1"
}

# look NAME: what gcloud says of a queued resource: ACTIVE, WAITING_FOR_RESOURCES, SUSPENDED, FAILED, ...
look() {
  gcloud compute tpus queued-resources describe "$1" --zone="$ZONE" ${PROJECT:+--project="$PROJECT"} \
    --format='value(state.state)'
}

# The state of a queued resource. That gcloud does not answer is none: machines would be given up, or taken for there.
state() {
  local tries
  for ((tries = 0; tries < 5; tries++)); do
    look "$1" && return
    sleep "${FLASHJAX_PAUSE:-60}"
  done
  fail "gcloud does not tell the state of the queued resource $1; the lines above say why."
}

# gone NAME STATUS: whether the machines were taken away. Their workers were told (75), do not come (77), or fall silent
# (255), or gcloud finds none (1, as of a run that has crashed), before the queued resource says so.
gone() {
  local now looks
  for ((looks = 0; looks < 5; looks++)); do
    now="$(state "$1")" || exit
    [ "$now" = ACTIVE ] || return 0
    case "$2" in
      1 | 75 | 77 | 255) sleep "${FLASHJAX_PAUSE:-60}" ;;
      *) return 1 ;;
    esac
  done
  return 1
}

# queue NAME OPTION ...: asks for a queued resource and waits until its machines are there. One that is there already is
# of this script, started before.
queue() {
  local name="$1" now made=1
  shift
  tpus queued-resources create "$name" --accelerator-type="$FLASHJAX_TPU" \
    --runtime-version="${FLASHJAX_RUNTIME:-v2-alpha-tpuv6e}" "$@" || made=0
  [ "$DRY_RUN" = 0 ] || return 0
  if [ "$made" = 0 ]; then
    look "$name" >/dev/null || fail "The queued resource $name cannot be made; the lines above say why."
    say "$name is there already: going on with it"
  fi
  while true; do
    now="$(state "$name")" || exit
    case "$now" in
      ACTIVE) return ;;
      FAILED | SUSPENDED) fail "The queued resource $name is $now; gcloud compute tpus queued-resources describe says why." ;;
    esac
    say "$name is $now"
    sleep "${FLASHJAX_PAUSE:-60}"
  done
}

# descendants PID: all processes that it has started, and they.
descendants() {
  local child
  for child in $(pgrep -P "$1"); do
    printf '%s\n' "$child"
    descendants "$child"
  done
}

# leave STATUS: somebody wants the script to end. gcloud in the background, and the ssh that it has started, do not end with
# it by themselves. What runs on the machines does not hear of it.
leave() {
  trap '' TERM INT HUP
  # shellcheck disable=SC2046  # words
  kill -TERM $(descendants $$) 2>/dev/null || true
  say "not following any longer: the machines of $FLASHJAX_NAME are kept, and what runs on them goes on. $0 --follow follows \
it again, $0 --stop has it save and leave." || true
  exit "$1"
}

# at_once NODES ARG ...: the runs of all nodes together, begun, or with --follow or --stop those that are there.
at_once() {
  local nodes="$1" does=attend node pid status=0
  local -a pids=()
  shift
  case "$1" in
    --follow) does=follow ;;
    --stop) does=end ;;
    *) run git -C "$ROOT" archive --format=tar.gz --output="$ARCHIVE" HEAD || return ;;
  esac
  # gcloud ends with an error of its own, after which the script would go on; and with SIGTERM the script would leave its
  # background processes.
  trap 'leave 130' INT
  trap 'leave 143' TERM
  trap 'leave 129' HUP
  for node in $nodes; do
    "$does" "$node" "$@" &
    pids+=("$!")
  done
  for pid in "${pids[@]}"; do
    wait "$pid" || status=$?
  done
  trap - TERM HUP
  return "$status"
}

# queued NAME OPTIONS NODES ARG ...: the whole of it. Machines that were taken away are asked for again, and the run goes
# on from its newest checkpoint. OPTIONS and NODES are lists of words.
queued() {
  local name="$1" options="$2" nodes="$3" status tries=0
  shift 3
  case "${FLASHJAX_SPOT:-0}" in
    0) ;;
    1) options+=" --spot" ;;
    *) fail "FLASHJAX_SPOT is $FLASHJAX_SPOT; it has to be 0 or 1." ;;
  esac
  case "$1" in
    --follow | --stop)
      at_once "$nodes" "$@"
      return
      ;;
  esac
  trap 'leave 130' INT
  while true; do
    # shellcheck disable=SC2086  # words
    queue "$name" $options
    status=0
    at_once "$nodes" "$@" || status=$?
    [ "$DRY_RUN" = 0 ] || return 0
    [ "$status" != 0 ] && gone "$name" "$status" || return "$status"
    tries=$((tries + 1))
    [ "$tries" -le "${FLASHJAX_RESTARTS:-100}" ] || return "$status"
    say "the machines of $name were taken away; asking for them again"
    tpus queued-resources delete "$name" --force --quiet
  done
}
