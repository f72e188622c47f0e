#!/usr/bin/env bash
# The whole system in minutes, on any machine: write the built-in video set, train a tiny CLIP on single pictures,
# train MoTE on videos, test close-set and zero-shot. What exists is reused; remove exps/demo to start afresh.
#   --ablation: also plain FFN, no merged pass, no modulation, over three seeds (about an hour); docs/results_demo.md
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export NPROC="${NPROC:-1}" # its batch size is made for one process
demo=exps/demo
configs="configs/demo/combinations.yaml configs/demo/objects.yaml configs/demo/style.yaml"
case "${1:-}" in
  "" | --ablation) ;;
  *) echo "usage: bash scripts/run_demo.sh [--ablation]" >&2; exit 2 ;;
esac

say() { printf '\n== %s\n' "$*"; }

# train NAME [section.key=value ...]: continues a run that was stopped, skips one that is done.
train() {
  local run="$demo/shapes/tiny_clip/$1"
  [ -e "$run/done" ] && return
  say "train $*"
  bash scripts/run_train.sh configs/demo/mote.yaml --log_time "$@" resume=auto
  touch "$run/done"
}

# evaluate NAME WEIGHTS [section.key=value ...]: all tests of one row of the table.
evaluate() {
  local results="$demo/results/$1" weights="$2"
  shift 2
  [ -e "$results/done" ] && return
  say "test $weights $*"
  bash scripts/run_test.sh configs/demo/mote.yaml "$weights" --output "$results/close_1x1" "$@"
  bash scripts/run_test.sh configs/demo/mote.yaml "$weights" --test_clips 4 --test_crops 3 \
    --output "$results/close_4x3" "$@"
  bash scripts/run_test_zeroshot.sh "$configs" "$weights" --test_clips 3 --output "$results/zero_shot" "$@"
  touch "$results/done"
}

say "set up"
source scripts/setup.sh
setup requirements.txt
source scripts/launch.sh

say "data"
python -m datasets.shapes --out "$demo/data"
if [ ! -e "$demo/tiny_clip.pt" ]; then
  say "tiny CLIP, trained on single pictures with captions"
  python -m tools.pretrain_tiny_clip --out "$demo/tiny_clip.pt"
fi

runs="$demo/shapes/tiny_clip"
train mote_1024
evaluate clip clip
evaluate mote_1024 "$runs/mote_1024/last_model.pt"

if [ "${1:-}" = --ablation ]; then
  for seed in 1024 1025 1026; do
    train "mote_$seed" "seed=$seed"
    train "no_merged_$seed" "seed=$seed" mote.merged=0 mote.feature_mse=0
    train "plain_$seed" "seed=$seed" network.num_experts=0
    evaluate "mote_$seed" "$runs/mote_$seed/last_model.pt"
    evaluate "no_modulation_$seed" "$runs/mote_$seed/last_model.pt" mote.modulation=false
    evaluate "no_merged_$seed" "$runs/no_merged_$seed/last_model.pt"
    evaluate "plain_$seed" "$runs/plain_$seed/last_model.pt" network.num_experts=0
  done
  python -m tools.demo_table --results "$demo/results" --ablation docs/results_demo.md
fi

say "results"
python -m tools.demo_table --results "$demo/results" --plot "$demo/tradeoff.png"
