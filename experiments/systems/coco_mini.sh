#!/usr/bin/env bash
# Each paper's recipe on a small COCO folder for two epochs, at reduced width, the encoder small and trained: that every
# path from JPEG to caption and score is whole. Usage: coco_mini.sh FOLDER (annotations/captions_train2017.json, train2017/)
set -euo pipefail
root=$1
small=(data=coco data.train=train2017 data.val=train2017 encoder.model=resnet10t encoder.pretrained=false encoder.image_size=128
  vocab.min_count=1 trainer.batch_size=16 trainer.epochs=2 trainer.max_steps=null trainer.unfreeze_encoder_at_epoch=0
  validation.batch_size=16 tracking=none device=cpu)
lstm=(decoder.embed_dim=64 decoder.hidden_dim=128)

run() {
  easycap train "experiment=$1" "data.root=$root" "${small[@]}" "${@:2}" 2>&1 |
    grep --text -E "million parameters|^epoch|^easycap" | sed "s|^|$1: |"
}

run show_and_tell/nic "${lstm[@]}" optim.lr=0.5
run show_attend_tell/soft "${lstm[@]}" decoder.attention_dim=64 optim.lr=3e-3
run show_attend_tell/hard "${lstm[@]}" decoder.attention_dim=64 optim.lr=3e-3
run updown/resnet "${lstm[@]}" decoder.attention_dim=64
run m2/resnet decoder.width=64 decoder.feed_forward_dim=128 schedule=constant optim.lr=1e-3
run m2/transformer_resnet decoder.width=64 decoder.feed_forward_dim=128 schedule=constant optim.lr=1e-3
run easycap/coco decoder=gpt2_tiny image_tokens.count=10 schedule=constant optim.lr=1e-3
