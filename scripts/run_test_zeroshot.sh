#!/usr/bin/env bash
# Zero-shot test on all visible GPUs of this machine, or on the CPU.
# Several splits in one run, with their mean: put the configurations into one quoted argument.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"
need 2 "[NPROC=n] bash scripts/run_test_zeroshot.sh CONFIG|'CONFIG*.yaml' WEIGHTS [--test_clips N] [...]" "$@"
# shellcheck disable=SC2206  # splitting and globbing are meant
[ -e "$1" ] && configs=("$1") || configs=($1)
weights="$2"
shift 2
launch test_zeroshot.py --config "${configs[@]}" --weights "$weights" "$@"
