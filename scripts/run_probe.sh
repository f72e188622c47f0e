#!/usr/bin/env bash
# Linear probe on all visible GPUs of this machine, or on the CPU; docs/probe.md.
# Several splits in one run, with their mean: put the configurations into one quoted argument.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/launch.sh"
need 2 "[NPROC=n] bash scripts/run_probe.sh CONFIG|'CONFIG*.yaml' WEIGHTS [--shots K] [--solver logistic|linear] [...]" "$@"
# shellcheck disable=SC2206  # splitting and globbing are meant
[ -e "$1" ] && configs=("$1") || configs=($1)
weights="$2"
shift 2
launch probe.py --config "${configs[@]}" --weights "$weights" "$@"
