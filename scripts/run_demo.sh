#!/usr/bin/env bash
# The whole system in minutes, on any machine: write the built-in video set, train a tiny CLIP on single pictures,
# train MoTE on videos, test close-set and zero-shot. What exists is reused; remove exps/demo to start afresh.
#   --ablation: also plain FFN, no merged pass, no modulation, over three seeds (about an hour); docs/results_demo.md
#   --systems: every system, temporal module and classifier (21 to 42 minutes on 2 cores); docs/results_systems.md
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/rows.sh
export NPROC="${NPROC:-1}" # its batch size is made for one process
demo=exps/demo runs=exps/demo/shapes/tiny_clip mote=configs/demo/mote.yaml
case "${1:-}" in
  "" | --ablation | --systems) ;;
  *) echo "usage: bash scripts/run_demo.sh [--ablation | --systems]" >&2; exit 2 ;;
esac

# evaluate SYSTEM NAME WEIGHTS [section.key=value ...]: all tests of one row of the table, after the command in "${first[@]}"
# if there is one; of the zero-shot tests alone are the values in $of_zero_shot. A system that is not trained on labels has
# a file of its own for those that are seen.
first=()
evaluate() {
  local config="configs/demo/$1.yaml" parts="configs/demo/$1" results="$demo/results/$2" weights="$3"
  shift 3
  [ -e "$results/done" ] && return
  [ -d "$parts" ] || parts=configs/demo # MoTE's
  [ ! -e "$parts/seen.yaml" ] || config="$parts/seen.yaml"
  say "test $weights $*"
  # shellcheck disable=SC2086  # several values
  python -m tools.demo.in_turn ${first[@]+"${first[@]}" ,} \
    test.py --config "$config" --weights "$weights" --output "$results/close_1x1" "$@" , \
    test.py --config "$config" --weights "$weights" --test_clips 4 --test_crops 3 --output "$results/close_4x3" "$@" , \
    test_zeroshot.py --config "$parts/combinations.yaml" "$parts/objects.yaml" "$parts/style.yaml" \
    --weights "$weights" --test_clips 3 --output "$results/zero_shot" "$@" ${of_zero_shot:-}
  touch "$results/done"
}

# explore NAME WEIGHTS: if this row is one of $explored, captions look for their videos, and a linear classifier learns
# from frozen features.
explore() {
  local results="$demo/results/$1" search probe
  [ ! -e "$results/explored" ] && IFS='|' read -r _ search probe < <(grep "^$1|" <<<"$explored") || return 0
  say "search and probe $2"
  python -m tools.demo.in_turn \
    test_retrieval.py --config "configs/demo/$search" --weights "$2" --output "$results/retrieval" \
    --save_logits "$results/search.npz" , \
    test_retrieval.py --config "configs/demo/$search" --weights "$2" --output "$results/retrieval_new" \
    data.dataset=shapes_retrieval_new "data.val_list=$demo/data/lists/retrieval_new.txt" , \
    probe.py --config "configs/demo/$probe" --weights "$2" --output "$results/probe"
  touch "$results/explored"
}

# make_row SYSTEM NAME [section.key=value ...]: train and test it, mostly on shards, which are read faster.
# Rows that are named clip... are the pretrained model.
make_row() {
  local system="$1" name="$2" weights="$runs/$2/last_model.pt"
  shift 2
  set -- "$@" data.workers=1 # beside another row
  [ "$system" = tvtsv2 ] || set -- "$@" data.modality=shards "data.train_root=$demo/pack" "data.val_root=$demo/pack"
  case "$name" in
    clip*) weights=clip ;;
    *) first=(train.py --config "configs/demo/$system.yaml" --log_time "$name" "$@" resume=auto) ;;
  esac
  evaluate "$system" "$name" "$weights" "$@"
  explore "$name" "$weights"
}

# add_data: the videos, films that are told word by word, and shards.
add_data() {
  local part stories
  python -m datasets.shapes --out "$demo/data"
  python -m datasets.shapes --out "$demo/data" --films
  for part in story_train story_val; do
    stories="$demo/data/transcripts/$part"
    [ -e "$stories/transcripts.json" ] || python -m datasets.prepare transcripts "$demo/data/lists/$part.csv" \
      --annotations "$demo/data/videos" --out "$stories"
  done
  [ -e "$demo/pack/done" ] && return
  cat "$demo/data/lists/"{train,val,zs_combinations,zs_objects,zs_style}.txt >"$demo/all.txt"
  python -m datasets.pack "$demo/all.txt" --root "$demo/data/videos" --out "$demo/pack" --quality 95
  touch "$demo/pack/done"
}

# pretrain: the tiny CLIP, from pictures that are drawn as it learns.
pretrain() {
  [ -e "$demo/tiny_clip.pt" ] || python -m tools.pretrain_tiny_clip --out "$demo/tiny_clip.pt"
}

ablation() {
  local seed
  for seed in 1024 1025 1026; do
    train "$mote" "$runs/mote_$seed" "seed=$seed"
    train "$mote" "$runs/no_merged_$seed" "seed=$seed" mote.merged=0 mote.feature_mse=0
    train "$mote" "$runs/plain_$seed" "seed=$seed" network.num_experts=0
    evaluate mote "mote_$seed" "$runs/mote_$seed/last_model.pt"
    evaluate mote "no_modulation_$seed" "$runs/mote_$seed/last_model.pt" mote.modulation=false
    evaluate mote "no_merged_$seed" "$runs/no_merged_$seed/last_model.pt"
    evaluate mote "plain_$seed" "$runs/plain_$seed/last_model.pt" network.num_experts=0
  done
  python -m tools.demo.table --results "$demo/results" --ablation docs/results_demo.md
}

systems() {
  local means rows explored system name overrides of_zero_shot
  beside "$demo/logs/tiny_clip.log" pretrain
  beside "$demo/logs/data.log" add_data
  rows_below 1
  means="$demo/class_means.npz" # of one of the classifiers, whose row comes later than the next two
  [ -e "$means" ] || beside "$demo/logs/class_means.log" python -m tools.class_means --config configs/demo/text4vis.yaml --out "$means"
  rows="$(python -m tools.demo.systems --rows)" explored="$(python -m tools.demo.search --rows)"
  while IFS='|' read -r system name overrides of_zero_shot <&3; do
    # shellcheck disable=SC2086  # several values
    beside "$demo/logs/$name.log" make_row "$system" "$name" $overrides
  done 3<<<"$rows"
  rows_below 1
  python -m tools.demo.search_picture --search "$demo/results/tvtsv2/search.npz" --out "$demo/search.png"
  python -m tools.demo.systems --page docs/results_systems.md
}

say "set up"
source scripts/setup.sh
setup requirements.txt
source scripts/launch.sh

if [ "${1:-}" = --systems ]; then
  systems # the two rows below are among them
else
  say "data"
  python -m datasets.shapes --out "$demo/data"
  say "tiny CLIP, trained on single pictures with captions"
  pretrain
  train "$mote" "$runs/mote_1024"
  evaluate mote clip clip
  evaluate mote mote_1024 "$runs/mote_1024/last_model.pt"
fi
[ "${1:-}" != --ablation ] || ablation

say "results"
python -m tools.demo.table --results "$demo/results" --plot "$demo/tradeoff.png"
