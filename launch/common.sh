# shellcheck shell=bash
# Sourced by the scripts beside it: where the repository is, a Python, an environment with flashjax in it.

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
VENV="${FLASHJAX_VENV:-$ROOT/.venv}"
DRY_RUN=0

say() {
  printf '[flashjax] %s\n' "$*"
}

fail() {
  printf '[flashjax] %s\n' "$*" >&2
  exit 2
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

new_enough() {
  "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

# Tried by running, as a name on the PATH may be a version manager's empty shim.
find_python() {
  local candidate
  for candidate in ${PYTHON:+"$PYTHON"} python3 python3.14 python3.13 python3.12 python3.11 python; do
    if new_enough "$candidate"; then
      printf '%s\n' "$candidate"
      return
    fi
  done
  fail "There is no Python 3.11 or newer here; install one, or name one with PYTHON=/path/to/python."
}

make_venv() {
  if [ -d "$VENV" ] && [ ! -e "$VENV/pyvenv.cfg" ] && [ -n "$(ls -A "$VENV")" ]; then
    fail "$VENV holds files but no Python environment; name another folder with FLASHJAX_VENV."
  fi
  local python
  python="$(find_python)" || exit
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

pip_install() {
  run "$VENV/bin/python" -m pip install --quiet "$@" \
    || fail "pip could not install $*; the lines above say why. Started again, it goes on from here."
}

# ensure_venv EXTRA: an environment with flashjax[EXTRA], made or brought up to date only where setup.py changed.
ensure_venv() {
  local extra="$1"
  [ -x "$VENV/bin/pip" ] || make_venv
  [ "$DRY_RUN" = 1 ] || new_enough "$VENV/bin/python" \
    || fail "The environment $VENV has a Python older than 3.11; delete it, or name another with FLASHJAX_VENV."
  # The test extra includes the postcards.
  if is_installed "$extra" || { [ "$extra" = postcards ] && is_installed test; }; then
    say "flashjax[$extra] is installed in $VENV"
    return
  fi
  say "installing flashjax[$extra] into $VENV (minutes, the first time)"
  # On its own and first: what asks for any torch later finds this one and pulls no CUDA build.
  [ "$extra" != test ] || pip_install torch==2.13.0
  pip_install -e "${ROOT}[${extra}]"
  [ "$DRY_RUN" = 1 ] || stamp >"$VENV/.flashjax-$extra"
}
