#!/usr/bin/env bash
# Each paper's recipe on a small COCO folder for two epochs, at reduced width, the encoder small and trained: that every
# path from JPEG to caption and score is whole. Nothing is fetched: regions are crops of the photos (crops_as_regions.py),
# ClipCap's language model is small and random (tiny_gpt2.py). Usage: coco_mini.sh FOLDER [RECIPE ...]; without RECIPE all
# of them; FOLDER has annotations/captions_train2017.json, annotations/instances_train2017.json and train2017/.
set -euo pipefail
root=$1
wanted=" ${*:2} "
here=$(dirname "$0")
made=$(mktemp -d)
trap 'rm -r "$made"' EXIT
python "$here/crops_as_regions.py" "$root/annotations/instances_train2017.json" "$root/train2017" "$made/regions"
python "$here/tiny_gpt2.py" "$root/annotations/captions_train2017.json" "$made/gpt2"

small=(data=coco data.train=train2017 data.val=train2017 trainer.batch_size=16 trainer.epochs=2 trainer.max_steps=null
  validation.batch_size=16 tracking=none device=cpu)
cnn=(encoder.model=resnet10t encoder.pretrained=false encoder.image_size=128 trainer.unfreeze_encoder_at_epoch=0)
regions=("encoder.features=$made/regions" encoder.region_dim=192)
constant=(schedule=constant schedule.warmup_steps=0)
lstm=(vocab.min_count=1 decoder.embed_dim=64 decoder.hidden_dim=128)
attention=("${lstm[@]}" decoder.attention_dim=64)
transformer=(vocab.min_count=1 decoder.width=64 decoder.feed_forward_dim=128 "${constant[@]}" optim.lr=1e-3)
clipcap=("vocab.path=$made/gpt2" "decoder.pretrained=$made/gpt2" decoder.architecture=null "${constant[@]}" optim.lr=3e-3)

run() {
  if [[ $wanted != "  " && $wanted != *" $1 "* ]]; then return; fi
  easycap train "experiment=$1" "data.root=$root" "${small[@]}" "${@:2}" 2>&1 |
    grep --text -E "million parameters|^epoch|^easycap" | sed "s|^|$1: |"
}

run show_and_tell/nic "${cnn[@]}" "${lstm[@]}" optim.lr=0.5
run show_attend_tell/soft "${cnn[@]}" "${attention[@]}" optim.lr=3e-3
run show_attend_tell/hard "${cnn[@]}" "${attention[@]}" optim.lr=3e-3
run updown/resnet "${cnn[@]}" "${attention[@]}"
run updown/bottom_up "${regions[@]}" "${attention[@]}"
run m2/resnet "${cnn[@]}" "${transformer[@]}"
run m2/bottom_up "${regions[@]}" "${transformer[@]}"
run m2/transformer_resnet "${cnn[@]}" "${transformer[@]}"
run m2/transformer_bottom_up "${regions[@]}" "${transformer[@]}"
run clipcap/mlp_tuned "${cnn[@]}" "${clipcap[@]}"
run clipcap/mlp_frozen "${cnn[@]}" "${clipcap[@]}"
run clipcap/transformer_tuned "${cnn[@]}" "${clipcap[@]}" image_tokens.num_layers=2
run clipcap/transformer_frozen "${cnn[@]}" "${clipcap[@]}" image_tokens.num_layers=2
run easycap/coco "${cnn[@]}" decoder=gpt2_tiny image_tokens.count=10 "${constant[@]}" optim.lr=1e-3
