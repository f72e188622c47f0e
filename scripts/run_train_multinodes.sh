#!/usr/bin/env bash
# Train on several machines: start this on each of them, with its own NODE_RANK (0 on the one at MASTER_ADDR).
# The three numbers come from the command line or from the environment; MASTER_PORT defaults to 29500.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"
usage="bash scripts/run_train_multinodes.sh CONFIG [NODE_RANK MASTER_ADDR NNODES] [train.py arguments]"
need 1 "$usage" "$@"
config="$1"
shift
if [[ "${1:-}" =~ ^[0-9]+$ ]]; then
  need 3 "$usage" "$@"
  NODE_RANK="$1" MASTER_ADDR="$2" NNODES="$3"
  shift 3
fi
if [ -z "${NODE_RANK:-}" ] || [ -z "${MASTER_ADDR:-}" ] || [ -z "${NNODES:-}" ]; then
  echo "NODE_RANK, MASTER_ADDR and NNODES are needed; usage: $usage" >&2
  exit 2
fi
nproc="$(count_processes)"
name_launch
exec "$python" -m torch.distributed.run --nnodes "$NNODES" --node_rank "$NODE_RANK" \
  --master_addr "$MASTER_ADDR" --master_port "${MASTER_PORT:-29500}" \
  --nproc_per_node "$nproc" --max_restarts "${MAX_RESTARTS:-0}" "$root/train.py" --config "$config" "$@"
