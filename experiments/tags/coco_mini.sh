#!/usr/bin/env bash
# Tags from captions and from COCO's annotated objects on a small COCO folder: that every path from JPEG to tags, and from
# tags to captions, is whole. Usage: coco_mini.sh FOLDER (annotations/{captions,instances}_train2017.json, train2017/)
set -euo pipefail
small=(data=coco "data.root=$1" data.train=train2017 data.val=train2017 encoder.image_size=64 trainer.batch_size=16
  trainer.epochs=8 validation.batch_size=40 tracking=none device=cpu)

run() { # NAME OVERRIDES...
  easycap train "${small[@]}" "hydra.run.dir=outputs/coco_mini/$1" "${@:2}" 2>&1 |
    grep --text -E "^easycap| tags,|million parameters|^epoch 8| mAP  |F1@3|CIDEr-D  " | sed "s|^|$1: |"
}

for rule in captions data; do
  for tagger in cnn lstm; do
    run "$tagger-$rule" task=tags "tagger=$tagger" "tag_vocab=$rule" tag_vocab.min_count=3
  done
done
run predicted vocab.min_count=1 tags=predicted tags.run=outputs/coco_mini/cnn-data tags.threshold=0.2
run oracle vocab.min_count=1 tags=oracle tag_vocab=data tag_vocab.min_count=3
easycap caption outputs/coco_mini/cnn-data "$1"/train2017/*9.jpg | head -3
