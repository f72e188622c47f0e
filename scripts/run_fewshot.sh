#!/usr/bin/env bash
# Few-shot: for every K, train and test on several draws of K videos a class, then print mean and std; docs/few_shot.md.
# What is done is skipped, what was stopped continues. Further arguments go to training and tests. In front may stand:
#   SEEDS="0 1 2"   draws (data.shot_seed)          NAME=few_shot   folder of these runs, beside other runs
#   TEST_ARGS=...   test views, --test_clips 4 ...  NOVEL=CONFIG    tests that one too: base-to-novel
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
source "$here/launch.sh"
need 1 "[SEEDS='0 1 2'] [NAME=few_shot] bash scripts/run_fewshot.sh CONFIG [K ...] [--precision P] [section.key=value ...]" "$@"
config="$1"
shift
shots=()
while [[ "${1:-}" =~ ^[0-9]+$ ]]; do
  shots+=("$1")
  shift
done
[ "${#shots[@]}" -gt 0 ] || shots=(2 4 8 16)
read -ra seeds <<<"${SEEDS:-0 1 2}"
read -ra test_args <<<"${TEST_ARGS:-}"
name="${NAME:-few_shot}"

results() { PYTHONPATH="$root" "$python" "$root/tools/few_shot_table.py" --config "$config" --name "$name" "$@"; }

# Runs of other arguments under the same name would be taken for these.
folder="$(results --folder "$@")"
arguments="$config $* | tests: ${NOVEL:-} ${TEST_ARGS:-}"
mkdir -p "$folder"
if [ -e "$folder/arguments.txt" ] && [ "$(cat "$folder/arguments.txt")" != "$arguments" ]; then
  echo "error: $folder holds runs of other arguments ($(cat "$folder/arguments.txt")); put NAME=another in front" >&2
  exit 2
fi
echo "$arguments" >"$folder/arguments.txt"

for shot in "${shots[@]}"; do
  for seed in "${seeds[@]}"; do
    run="shot${shot}_seed$seed"
    [ -e "$folder/$run/test/results.json" ] && continue
    bash "$here/run_train.sh" "$config" --log_time "$name/$run" "$@" \
      "data.shot=$shot" "data.shot_seed=$seed" resume=auto
    tests=("$folder/$run/last_model.pt" "${test_args[@]}" --output "$folder/$run/test" "$@")
    if [ -n "${NOVEL:-}" ]; then
      bash "$here/run_test_zeroshot.sh" "$config $NOVEL" "${tests[@]}"
    else
      bash "$here/run_test.sh" "$config" "${tests[@]}"
    fi
  done
done
results "$@"
