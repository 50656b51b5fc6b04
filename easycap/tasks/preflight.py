"""Warnings about a training before it starts: (level, sentence)."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator
from typing import Any, cast

from torch import nn

from easycap.config.init_from import differences, initial_run_config, is_trained_here
from easycap.metrics.unspaced import unspaced_scripts
from easycap.models.decoders.causal_lm import CausalLM
from easycap.models.decoders.token_embedding import word_tables
from easycap.runs.reading import data_name
from easycap.types import Vocabulary
from easycap.utils.segmenters import SPACES, Segmenter
from easycap.vocab.survey import Survey, lost_marks

Notice = tuple[int, str]
INFO, WARNING = logging.INFO, logging.WARNING

# Above this share of training captions without their end, captions are noticeably learnt too short.
MANY_CUT = 0.02
# Warn if less than this share of the running words is in the vocabulary.
_FEW_KNOWN = 0.8
# Warn if more than this share of the captions loses accents or marks.
_MANY_LOST = 0.01


def about_initial_weights(config: dict[str, Any], model: nn.Module, *, resumed: bool) -> Iterator[Notice]:
    """What init_from changes, and encoders that start from random weights."""
    if (run := config["init_from"]) is not None and not resumed:
        changed = differences(initial_run_config(run), config, trained_here=is_trained_here(run))
        yield INFO, f"init_from={run}; changed: {', '.join(changed) or 'nothing'}"
    unfreeze = config["trainer"]["unfreeze_encoder_at_epoch"]
    shown = "null" if unfreeze is None else unfreeze
    starts_random = not config["encoder"].get("pretrained", False) and config["init_from"] is None
    if starts_random and any(True for _ in model.get_submodule("encoder").parameters()) and unfreeze != 0:
        yield (
            WARNING,
            f"the encoder starts from random weights and is frozen (trainer.unfreeze_encoder_at_epoch={shown}): its "
            "features hardly differ between images",
        )
    yield from _about_untrained_encoders_of_photos(config)
    if not resumed and config["init_from"] is None:
        yield from _about_words_of_language_models(config, model)


def _about_words_of_language_models(config: dict[str, Any], model: nn.Module) -> Iterator[Notice]:
    """Word embeddings that the pretrained language model lacks, or that are trained from scratch."""
    decoder = config["decoder"]
    source = decoder.get("pretrained")
    if source is None or "embedding" not in decoder:
        return
    if decoder["embedding"] == "random":
        lm = cast(CausalLM, model.get_submodule("decoder")).lm
        tables = {id(table): table for table in word_tables(lm)}
        number = sum(table.numel() for table in tables.values())
        yield (
            WARNING,
            f"decoder.embedding=random discards the word embeddings of {source}: {number / 1e6:.1f} million weights "
            "start untrained; decoder.embedding=pretrained keeps them",
        )
    elif config["vocab"]["name"] in ("word", "bert"):
        yield (
            INFO,
            f"the words of vocab={config['vocab']['name']} are not those of {source}: each starts at the mean of its "
            "subword embeddings there; vocab=pretrained uses its own",
        )


def _about_untrained_encoders_of_photos(config: dict[str, Any]) -> Iterator[Notice]:
    """No published model learns to see photos from captions alone, let alone at 64 pixels."""
    encoder = config["encoder"]
    if config["init_from"] is not None or config["data"]["name"] == "scenes":
        return
    untrained = not encoder.get("pretrained", True) and encoder.get("weights") is None
    if encoder["name"] == "small" or untrained:
        size = encoder.get("image_size")
        pixels = f" at {size} pixels" if size else ""
        yield (
            WARNING,
            f"encoder={encoder['name']} starts untrained{pixels}, and captions alone teach it very little about "
            f"photos (data={data_name(config)}): use pretrained weights, e.g. encoder=resnet18 or "
            "experiment=easycap/coco",
        )


def about_rewards(config: dict[str, Any]) -> Iterator[Notice]:
    """Rewards from the first step on, and settings that do not reach a rewarded decoder: it is called in eval mode."""
    if config["objective"]["name"] != "scst":
        return
    if not config["objective"]["xe_first"] and config["init_from"] is None:
        yield (
            WARNING,
            "objective=scst starts from random weights, whose captions earn almost no reward: set "
            "init_from=RUN, or objective=xe_then_scst with trainer.patience",
        )
    if config["trainer"]["gradient_checkpointing"]:
        yield (
            WARNING,
            "trainer.gradient_checkpointing=true does not reach the decoder while captions are rewarded: "
            "use objective.rows_per_pass to limit memory there",
        )
    if config["trainer"]["compile"]:
        yield WARNING, "trainer.compile=true has no effect on steps in which captions are rewarded"


def about_cut_captions(config: dict[str, Any], train: Survey, max_length: int) -> Iterator[Notice]:
    """Captions that are longer than the decoder's positions."""
    if train.truncated:
        yield (
            WARNING if train.truncated > MANY_CUT else INFO,
            f"{100 * train.truncated:.2f}% of the training captions ({train.length:.1f} words on average with "
            f"vocab={config['vocab']['name']}) are cut to decoder.max_length={max_length} positions; a higher "
            "decoder.max_length keeps them whole",
        )


def about_unknown_words(config: dict[str, Any], train: Survey) -> Iterator[Notice]:
    """A vocabulary that covers few of the training words."""
    if train.coverage < _FEW_KNOWN:
        settings = [
            f"vocab.{key}={config['vocab'][key]}" for key in ("min_count", "size") if key in config["vocab"]
        ]
        yield (
            WARNING,
            f"the vocabulary has only {100 * train.coverage:.0f}% of the running words of the training captions, and "
            f"the others are learned as <unk> ({', '.join(settings)}): lower vocab.min_count or raise vocab.size",
        )


def about_scripts(
    config: dict[str, Any], vocabulary: Vocabulary, captions: Collection[str], segmenter: Segmenter = SPACES
) -> Iterator[Notice]:
    """Scripts without spaces between words, and marks that the vocabulary drops."""
    for found in unspaced_scripts(map(segmenter, captions)):
        yield WARNING, str(found)
    lost = lost_marks(vocabulary, captions)
    if lost >= _MANY_LOST:
        yield (
            WARNING,
            f"vocab={config['vocab']['name']} drops accents and combining marks from {100 * lost:.0f}% of the "
            "captions, so generated captions lack them and cannot match those references; vocab=word and "
            "vocab=gpt2 keep them",
        )
