#!/usr/bin/env bash
# Frozen zero-shot of several towers, as a Markdown table: each is tested as its own description wants its pictures.
# What is done is skipped; a tower that fails is told, and the others go on. In front may stand:
#   NAME=exps/encoders   folder of the results          TEST_ARGS="--test_clips 3"   views
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
source "$here/launch.sh"
need 2 "[NAME=exps/encoders] bash scripts/run_table.sh 'TAG ...' CONFIG|'CONFIG*.yaml' [--precision P] [section.key=value ...]" "$@"
read -ra tags <<<"$1"
configs="$2"
shift 2
folder="${NAME:-exps/encoders}"
read -ra test_args <<<"${TEST_ARGS:-}"

table() { PYTHONPATH="$root" "$python" -m tools.encoders.table --folder "$folder" "$@"; }

# Results of other arguments under the same name would be taken for these.
arguments="$configs $* | ${TEST_ARGS:-}"
mkdir -p "$folder"
if [ -e "$folder/arguments.txt" ] && [ "$(cat "$folder/arguments.txt")" != "$arguments" ]; then
  echo "error: $folder holds results of other arguments ($(cat "$folder/arguments.txt")); put NAME=another in front" >&2
  exit 2
fi
echo "$arguments" >"$folder/arguments.txt"

folders="$(table --where "${tags[@]}")"
mapfile -t outs <<<"$folders"
status=0
for i in "${!tags[@]}"; do
  tag="${tags[$i]}" out="${outs[$i]}"
  [ -e "$out/results.json" ] && continue
  bash "$here/run_test_zeroshot.sh" "$configs" clip "${test_args[@]}" --output "$out" \
    network.system=clip "network.arch=$tag" data.transforms=tower data.input_size=0 "$@" || status=1
done
table "${tags[@]}"
exit "$status"
