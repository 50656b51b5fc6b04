"""Scores of captions: (captions, references, annotations) in, numbers with signatures and intervals out.

Strings and numbers only; torch is never imported here. Every scorer registers itself under "scorer".
"""

from easycap.metrics.baselines import most_frequent_caption, score_baselines
from easycap.metrics.bleu import Bleu
from easycap.metrics.cider import CiderD, CiderReward
from easycap.metrics.coco_objects import CocoObjects, read_instances
from easycap.metrics.corpus import prepare
from easycap.metrics.diversity import diversity
from easycap.metrics.document_frequencies import DocumentFrequencies
from easycap.metrics.health import caption_health
from easycap.metrics.java import Absent
from easycap.metrics.meteor import Meteor
from easycap.metrics.multiple_samples import score_samples
from easycap.metrics.paired import Comparison, compare
from easycap.metrics.rouge import RougeL
from easycap.metrics.scoring import Scores, score
from easycap.metrics.spice import Spice
from easycap.metrics.things import named_things
from easycap.metrics.tokenizer import tokenize

__all__ = [
    "Absent",
    "Bleu",
    "CiderD",
    "CiderReward",
    "CocoObjects",
    "Comparison",
    "DocumentFrequencies",
    "Meteor",
    "RougeL",
    "Scores",
    "Spice",
    "caption_health",
    "compare",
    "diversity",
    "most_frequent_caption",
    "named_things",
    "prepare",
    "read_instances",
    "score",
    "score_baselines",
    "score_samples",
    "tokenize",
]
