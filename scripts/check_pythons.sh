#!/usr/bin/env bash
# Install into a fresh environment and train, test and predict in it, for every Python from 3.10 to 3.14 on this machine
# (on PATH, or pyenv's); prints a table, and exits with 1 if a step of any failed.
#   bash scripts/check_pythons.sh [constraints] [newest] [lowest]     (default: all three)
# constraints: the versions of constraints.txt; newest: whatever is newest today; lowest: the lower bounds of the
# requirements files, on the oldest Python only. PYTHONS="python3.11 /opt/python3.12" tries these instead. An environment takes
# about 7 GB and is removed before the next is made. Logs, the table and what was installed go to exps/check_pythons.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
out="$PWD/exps/check_pythons"
requirements="${REQUIREMENTS:-requirements.txt}" # requirements-dev.txt: with the page, export and the tests' packages
step_limit_s=3600
steps=(install data train test predict)
weights=exps/debug/tiny_clip/check/last_model.pt

main() {
  local modes=("$@") pythons=() python mode status=0
  [ "${#modes[@]}" -gt 0 ] || modes=(constraints newest lowest)
  for mode in "${modes[@]}"; do
    case "$mode" in
      constraints | newest | lowest) ;;
      *) echo "usage: bash scripts/check_pythons.sh [constraints] [newest] [lowest]" >&2; exit 2 ;;
    esac
  done
  while IFS= read -r python; do pythons+=("$python"); done < <(find_pythons)
  if [ "${#pythons[@]}" -eq 0 ]; then
    echo "error: no Python from 3.10 to 3.14 with venv and pip was found" >&2
    exit 2
  fi
  mkdir -p "$out"
  table_head >"$out/table.md"
  for python in "${pythons[@]}"; do
    for mode in "${modes[@]}"; do
      [ "$mode" != lowest ] || [ "$python" = "${pythons[0]}" ] || continue
      check "$python" "$mode" || status=1
    done
  done
  cat "$out/table.md"
  exit "$status"
}

# One working interpreter for each version, oldest first.
find_pythons() {
  local minor candidate
  if [ -n "${PYTHONS:-}" ]; then
    for candidate in $PYTHONS; do command -v "$candidate"; done
    return
  fi
  for minor in 10 11 12 13 14; do
    for candidate in "python3.$minor" "${PYENV_ROOT:-$HOME/.pyenv}/versions/3.$minor".*/bin/python3; do
      # A shim of pyenv may have no Python behind it, and some systems' Python cannot make environments.
      if "$candidate" -c "import sys, venv, ensurepip; sys.exit(sys.version_info[:2] != (3, $minor))" 2>/dev/null; then
        command -v "$candidate"
        break
      fi
    done
  done
}

# check PYTHON MODE: all steps in a copy of the repository (what git has staged); adds a line to the table.
check() {
  local python="$1" mode="$2" version name copy step state=ok results=""
  version="$("$python" -c 'import platform; print(platform.python_version())')"
  name="${version}_$mode"
  copy="$(mktemp -d)"
  : >"$out/$name.log"
  git checkout-index --all --prefix="$copy/"
  echo "== $name" >&2
  for step in "${steps[@]}"; do
    # After a failure the later steps would fail for its reason.
    if [ "$state" = ok ]; then
      (cd "$copy" && run_step "$step" "$python" "$mode") >>"$out/$name.log" 2>&1 </dev/null || state=FAILED
      results+=" $state |"
      echo "$step: $state" >&2
    else
      results+=" |"
    fi
  done
  "$copy/.venv/bin/python" -m pip freeze >"$out/$name.txt" 2>/dev/null
  echo "| $version | $mode | $(versions "$out/$name.txt")$results" >>"$out/table.md"
  rm -rf "$copy"
  [ "$state" = ok ]
}

# run_step STEP PYTHON MODE, in the copy.
run_step() {
  unset VIRTUAL_ENV
  echo "-- $1"
  case "$1" in
    install) install "$2" "$3" ;;
    data) limited .venv/bin/python -m tools.make_debug_data ;;
    train) limited bash scripts/run_train.sh configs/debug/debug.yaml --log_time check ;;
    test) limited bash scripts/run_test.sh configs/debug/debug.yaml "$weights" --test_clips 2 --test_crops 3 --strict ;;
    predict) limited .venv/bin/python predict.py exps/debug_data/videos --weights "$weights" ;;
  esac
}

install() {
  export PYTHON="$1"
  case "$2" in
    newest) export NO_CONSTRAINTS=1 ;;
    lowest) lower_bounds >constraints.txt ;;
  esac
  limited bash -c "set -euo pipefail; source scripts/setup.sh; setup $requirements"
}

# The lower bounds of what is installed, as constraints: the higher one where two files have one.
lower_bounds() {
  local files=("$requirements")
  [ "$requirements" != requirements-dev.txt ] || files=(requirements*.txt)
  sed -n 's/^\([A-Za-z0-9_.-]*\)>=\([^; ]*\).*/\1==\2/p' "${files[@]}" |
    sort -V | awk -F== '{ bound[$1] = $0 } END { for (package in bound) print bound[package] }'
}

# limited COMMAND...: a step that hangs is a failure (where there is a timeout command; macOS has none).
limited() {
  if command -v timeout >/dev/null; then
    timeout "$step_limit_s" "$@"
  else
    "$@"
  fi
}

table_head() {
  printf '| Python | versions | torch | av | decord |'
  printf ' %s |' "${steps[@]}"
  printf '\n|---|---|---|---|---|'
  printf '%.0s---|' "${steps[@]}"
  printf '\n'
}

# versions FREEZE: three cells of the table.
versions() {
  local package version
  for package in torch av decord; do
    version="$(sed -n "s/^$package==//p" "$1")"
    printf '%s |' "${version:--}"
    [ "$package" = decord ] || printf ' '
  done
}

main "$@"
