#!/usr/bin/env bash
# Retrieval test on all visible GPUs of this machine, or on the CPU.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"
need 2 "[NPROC=n] bash scripts/run_test_retrieval.sh CONFIG WEIGHTS [--dual_softmax L] [--choices] [...]" "$@"
config="$1" weights="$2"
shift 2
launch test_retrieval.py --config "$config" --weights "$weights" "$@"
