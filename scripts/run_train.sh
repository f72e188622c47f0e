#!/usr/bin/env bash
# Train on all visible GPUs of this machine, or on the CPU.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"
need 1 "[NPROC=n] bash scripts/run_train.sh CONFIG [--log_time NAME] [--precision P] [section.key=value ...]" "$@"
config="$1"
shift
launch train.py --config "$config" "$@"
