#!/usr/bin/env bash
# Each paper's recipe on a small COCO folder for two epochs, at reduced width, the encoder small and trained: that every
# path from JPEG to caption and score is whole. Usage: coco_mini.sh FOLDER [RECIPE ...], FOLDER with
# annotations/captions_train2017.json and train2017/; without RECIPE all of them.
set -euo pipefail
root=$1
wanted=" ${*:2} "
small=(data=coco data.train=train2017 data.val=train2017 encoder.model=resnet10t encoder.pretrained=false encoder.image_size=128
  trainer.batch_size=16 trainer.epochs=2 trainer.max_steps=null trainer.unfreeze_encoder_at_epoch=0
  validation.batch_size=16 tracking=none device=cpu)
lstm=(vocab.min_count=1 decoder.embed_dim=64 decoder.hidden_dim=128)
transformer=(vocab.min_count=1 decoder.width=64 decoder.feed_forward_dim=128 schedule=constant optim.lr=1e-3)

run() {
  if [[ $wanted != "  " && $wanted != *" $1 "* ]]; then return; fi
  easycap train "experiment=$1" "data.root=$root" "${small[@]}" "${@:2}" 2>&1 |
    grep --text -E "million parameters|^epoch|^easycap" | sed "s|^|$1: |"
}

run show_and_tell/nic "${lstm[@]}" optim.lr=0.5
run show_attend_tell/soft "${lstm[@]}" decoder.attention_dim=64 optim.lr=3e-3
run show_attend_tell/hard "${lstm[@]}" decoder.attention_dim=64 optim.lr=3e-3
run updown/resnet "${lstm[@]}" decoder.attention_dim=64
run m2/resnet "${transformer[@]}"
run m2/transformer_resnet "${transformer[@]}"
constant=(schedule=constant schedule.warmup_steps=0)
gpt2=$(mktemp -d) # no weights are fetched: ClipCap's language model is small and random here
trap 'rm -r "$gpt2"' EXIT
python "$(dirname "$0")/tiny_gpt2.py" "$root/annotations/captions_train2017.json" "$gpt2"
clipcap=("vocab.path=$gpt2" "decoder.pretrained=$gpt2" decoder.architecture=null "${constant[@]}" optim.lr=3e-3)
for tuning in tuned frozen; do
  run "clipcap/mlp_$tuning" "${clipcap[@]}"
  run "clipcap/transformer_$tuning" "${clipcap[@]}" image_tokens.num_layers=2
done
run easycap/coco decoder=gpt2_tiny image_tokens.count=10 "${constant[@]}" optim.lr=1e-3
