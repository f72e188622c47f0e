# Sourced by the run_*.sh scripts: finds Python, counts GPUs, starts one process or torchrun.

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

# The active environment, else the one that run_demo.sh and run_tests.sh make, else the system's.
if [ -n "${VIRTUAL_ENV:-}" ] || [ ! -x "$root/.venv/bin/python" ]; then
  python="$(command -v python || command -v python3)"
else
  python="$root/.venv/bin/python"
fi

# On the CPU, other processes (loader workers) need the cores that idle OpenMP threads would keep spinning on.
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-PASSIVE}"

# Seconds that a run has to save when it is told to stop, before torchrun kills it.
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT="${TORCH_ELASTIC_SHUTDOWN_TIMEOUT:-110}"

# Processes that torchrun restarts know by it which run is theirs.
name_launch() {
  export LAUNCH_ID="$$-$(date +%s)-$RANDOM"
}

# Processes on this machine: $NPROC, else one a visible GPU, else one on the CPU.
count_processes() {
  if [ -n "${NPROC:-}" ]; then
    echo "$NPROC"
  elif [ "${CUDA_VISIBLE_DEVICES-unset}" != "" ] && { [ -e /dev/nvidia0 ] || command -v nvidia-smi >/dev/null; }; then
    "$python" -c 'import torch; print(max(torch.cuda.device_count(), 1))'
  else
    echo 1
  fi
}

# launch SCRIPT ARGS...: a single process needs no launcher, and its errors stay short.
launch() {
  local script="$root/$1" nproc
  shift
  nproc="$(count_processes)"
  if [ "$nproc" -le 1 ]; then
    exec "$python" "$script" "$@"
  fi
  name_launch
  export RUN_NAME="${RUN_NAME:-$(date +%Y%m%d-%H%M%S)}" # processes that are restarted keep their run folder
  exec "$python" -m torch.distributed.run --standalone --nproc_per_node "$nproc" \
    --max_restarts "${MAX_RESTARTS:-0}" "$script" "$@"
}

# need COUNT USAGE ARGS...: print the usage and stop unless there are at least COUNT arguments.
need() {
  local count="$1" usage="$2"
  shift 2
  if [ "$#" -lt "$count" ]; then
    echo "usage: $usage" >&2
    exit 2
  fi
}
