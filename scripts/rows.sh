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
