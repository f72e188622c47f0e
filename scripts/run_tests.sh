#!/usr/bin/env bash
# Set up and run the checks and tests; arguments go to pytest (bash scripts/run_tests.sh -k config).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/setup.sh
setup requirements-dev.txt
source scripts/launch.sh
"$python" -m ruff check .
"$python" -m ruff format --check .
"$python" -m pytest "$@"
