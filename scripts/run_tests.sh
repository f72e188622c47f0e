#!/usr/bin/env bash
# Set up and run the checks and tests; arguments go to pytest (bash scripts/run_tests.sh -k config).
# Tests that take long are left out; -m "slow or not slow" runs all of them (most of an hour on 2 cores).
# TEST_PROCESSES=0 in front runs them in one process.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/setup.sh
setup requirements-dev.txt
source scripts/launch.sh
"$python" -m ruff check .
"$python" -m ruff format --check .
# A file's tests stay together, since they share what they set up; two files at a time, each with a thread.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
"$python" -m pytest -n "${TEST_PROCESSES:-2}" --dist loadfile "$@"
