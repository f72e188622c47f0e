#!/usr/bin/env bash
# Close-set test on all visible GPUs of this machine, or on the CPU.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"
need 2 "[NPROC=n] bash scripts/run_test.sh CONFIG WEIGHTS [--test_clips N] [--test_crops 1|3|5|10] [--dense] [...]" "$@"
config="$1" weights="$2"
shift 2
launch test.py --config "$config" --weights "$weights" "$@"
