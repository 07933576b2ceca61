#!/usr/bin/env bash
set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

usage() {
  cat <<'END'
launch/detached.sh [--help | --dry-run] start CLUSTER ARGUMENTS OF flashjax
launch/detached.sh [--help | --dry-run] follow | stop

Runs on a machine that others reach by ssh: the run goes on where the connection ends. Each of these may be given again,
as gcloud does by itself when a connection broke.

  start    launch/worker.sh in the background; where it runs already with the same arguments, nothing
  follow   shows the last lines that it has printed and what it prints, until it ends; the status is the run's
  stop     tells it to save and to leave

What it prints stands in ~/flashjax_run/log; ~/flashjax_run/lock is held as long as it runs.

  --dry-run   print the commands, run none of them
END
}

KEPT="$HOME/flashjax_run"

# The lock is inherited by all that the run starts, and gone with the last of it, however it ends.
running() {
  [ -e "$KEPT/lock" ] && ! flock --nonblock "$KEPT/lock" true
}

start() {
  mkdir -p "$KEPT"
  exec 9>>"$KEPT/lock"
  if ! flock --nonblock 9; then
    [ "$(cat "$KEPT/arguments" 2>/dev/null)" = "$*" ] \
      || fail "Another run is on this machine (flashjax $(sed 's/^[^ ]* //' "$KEPT/arguments")); stop it first."
    say "the run is on this machine already"
    return
  fi
  rm -f "$KEPT/status" "$KEPT/pid"
  printf '%s' "$*" >"$KEPT/arguments"
  setsid bash "${BASH_SOURCE[0]}" keep "$@" >"$KEPT/log" 2>&1 </dev/null &
  until [ -e "$KEPT/pid" ]; do sleep 0.1; done
}

# keep CLUSTER ARG ...: what start leaves behind.
keep() {
  local status=0
  bash "$ROOT/launch/worker.sh" "$@" &
  echo "$!" >"$KEPT/pid.new"
  mv "$KEPT/pid.new" "$KEPT/pid"
  wait "$!" || status=$?
  echo "$status" >"$KEPT/status"
}

# tail leaves with worker.sh, or comes after it; its status is written down a moment later.
follow() {
  local tries
  [ -e "$KEPT/pid" ] || fail "No run has been started on this machine."
  if running; then
    tail -n 50 -F "$KEPT/log" --pid="$(cat "$KEPT/pid")"
  else
    tail -n 50 "$KEPT/log"
  fi
  for ((tries = 0; tries < 20; tries++)); do
    [ ! -s "$KEPT/status" ] || exit "$(cat "$KEPT/status")"
    sleep 0.1
  done
  fail "The run has left no status: it was killed, or this machine was started anew; ~/flashjax_run/log is what it printed."
}

stop() {
  if running; then
    kill -TERM "$(cat "$KEPT/pid")" || fail "launch/worker.sh has gone, and something that it has started runs on; see ps -ef."
  else
    say "nothing runs on this machine"
  fi
}

arguments "$@"
case "${ARGS[0]}" in
  start) [ "${#ARGS[@]}" -gt 2 ] || fail "start needs a cluster and arguments of flashjax; see launch/detached.sh --help." ;;
  keep | follow | stop) ;;
  *) fail "${ARGS[0]} is not understood; see launch/detached.sh --help." ;;
esac
if [ "$DRY_RUN" = 0 ]; then
  "${ARGS[@]}"
elif [ "${ARGS[0]}" = start ]; then
  run setsid bash "$ROOT/launch/worker.sh" "${ARGS[@]:1}"
else
  say "${ARGS[0]} looks into $KEPT"
fi
