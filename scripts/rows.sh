# Sourced by run_demo.sh and run_proxy.sh: what tables that are made row by row share.

say() { printf '\n== %s\n' "$*"; }

# train CONFIG RUN [section.key=value ...]: RUN is the run's folder; continues one that was stopped, skips one that is done.
train() {
  local config="$1" run="$2"
  shift 2
  [ -e "$run/done" ] && return
  say "train ${run##*/} $*"
  bash scripts/run_train.sh "$config" --log_time "${run##*/}" "$@" resume=auto
  touch "$run/done"
}

# Small models are not faster with more threads, so two rows, of one thread each, are made at a time.
rows_at_once="${ROWS_AT_ONCE:-$(($(nproc 2>/dev/null || echo 1) > 1 ? 2 : 1))}"
failed="$(mktemp)" # names the log of a row that failed
# However the script ends, its rows end with it. Those that train save first, and continue next time.
trap 'for group in $(jobs -rp); do kill -TERM -- "-$group" 2>/dev/null || true; done; rm -f "$failed"' EXIT

# beside LOG COMMAND...: run it in the background, its output into LOG, as soon as there is room.
beside() {
  local log="$1"
  shift
  rows_below "$rows_at_once"
  say "in the background: $*"
  echo "$log"
  mkdir -p "$(dirname "$log")"
  set -m # in a group of processes that can be ended as a whole
  (
    trap '[ "$?" -eq 0 ] || echo "$log" >>"$failed"' EXIT
    export OMP_NUM_THREADS=1
    "$@"
  ) </dev/null >"$log" 2>&1 &
  set +m
}

# rows_below COUNT: wait until fewer than COUNT rows are being made; one that failed ends the script.
rows_below() {
  local log
  while [ ! -s "$failed" ] && [ "$(jobs -rp | wc -l)" -ge "$1" ]; do sleep 0.2; done
  [ -s "$failed" ] || return 0
  read -r log <"$failed"
  tail -n 20 "$log" >&2
  echo "error: see $log" >&2
  exit 1
}
