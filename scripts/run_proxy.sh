#!/usr/bin/env bash
# The proxy world's table: rows that are trained and tested on videos whose unseen classes tuning forgets; docs/proxy.md.
# What exists is reused and what was stopped continues, row by row; remove exps/proxy to start afresh.
#   --seeds N        runs of each row (3)
#   --clips "0 1"    pretrained CLIPs (0); each is trained from scratch once
#   --half dev       zero-shot classes to choose settings on (final: those of the page)
#   --rows ROWS      short (frozen, plain, MoTE), all, remedies, or names of rows and groups of tools/proxy/rows.py, beside short
# Of the final half it writes docs/results_proxy.md and docs/images/proxy.png, of the other the same two into exps/proxy.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/rows.sh
export NPROC="${NPROC:-1}" # its batch size is made for one process
seeds=3 clips=0 half=final rows=short proxy=exps/proxy
while [ "$#" -gt 0 ]; do
  case "$1" in
    --seeds | --clips | --half | --rows) [ "$#" -gt 1 ] && printf -v "${1#--}" %s "$2" && shift 2 && continue ;;
  esac
  echo 'usage: bash scripts/run_proxy.sh [--seeds N] [--clips "0 1"] [--half dev|final] [--rows short|all|remedies|NAMES]' >&2
  exit 2
done

# make_row ROW CLIP SEED CONFIG RUN RESULTS [section.key=value ...]: train and test it; without RUN it is the CLIP itself.
make_row() {
  local row="$1" clip="$2" seed="$3" config="$4" run="$5" results="$6" weights="$proxy/clip_$2.pt"
  shift 6
  if [ -n "$run" ]; then
    train "$config" "$run" "$@"
    weights="$run/last_model.pt"
  fi
  [ "$results/done" -nt "$weights" ] && return
  say "test $row, CLIP $clip, seed $seed, $half"
  python -m tools.proxy.evaluate --row "$row" --clip "$clip" --seed "$seed" --half "$half"
}

say "set up"
source scripts/setup.sh
setup requirements.txt
source scripts/launch.sh
runs=(--seeds "$seeds" --clips "$clips" --half "$half")
plan="$(python -m tools.proxy.rows --rows "$rows" "${runs[@]}")" # a wrong argument is told before any work

# The CLIPs learn from pictures that are drawn as they learn, while the videos are written.
for clip in $clips; do
  [ -e "$proxy/clip_$clip.pt" ] && continue
  beside "$proxy/logs/clip_$clip.log" python -m tools.pretrain_tiny_clip --world proxy --seed "$clip" --out "$proxy/clip_$clip.pt"
done
say "data"
python -m datasets.shapes --world proxy --out "$proxy/data"
if [ ! -e "$proxy/pack/done" ]; then
  say "all videos as shards, which are read faster"
  for part in train val {dev,final}_{objects,scenes,colours,styles,motions}; do cat "$proxy/data/lists/$part.txt"; done >"$proxy/all.txt"
  python -m datasets.pack "$proxy/all.txt" --root "$proxy/data/videos" --out "$proxy/pack" --quality 95
  touch "$proxy/pack/done"
fi
[ -e "$proxy/descriptors.yaml" ] || python -m tools.proxy.descriptors --out "$proxy/descriptors.yaml"
rows_below 1

while IFS='|' read -r row clip seed config run results overrides <&3; do
  name="$(basename "$results")_clip_$clip"
  # shellcheck disable=SC2086  # several values
  beside "$proxy/logs/$name.log" make_row "$row" "$clip" "$seed" "$config" "$run" "$results" $overrides
done 3<<<"$plan"
rows_below 1

say "results"
page=docs/results_proxy.md picture=docs/images/proxy.png
[ "$half" = final ] || page="$proxy/results_$half.md" picture="$proxy/results_$half.png"
python -m tools.proxy.table "${runs[@]}" --page "$page" --picture "$picture"
