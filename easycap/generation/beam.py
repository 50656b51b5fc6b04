"""Beam search: the captions with the best total score, several held at a time.

Shape legend: n images still searched, k beams of each, c candidates of each, t words so far, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import torch

from easycap.errors import UserError
from easycap.generation.logits_processors import NEVER, DecodingSettings
from easycap.registry import register
from easycap.types import Decoder, Generated, Memory, State, Vocabulary


class OnEnd(Enum):
    """What becomes of a finished caption's place in the beam, with which released code differs.

    refill: the best unfinished caption takes it, so that there are always `num_beams` of these (Hugging Face).
    keep: the finished caption, until `num_beams` captions rank above it (rmokady/CLIP_prefix_caption at 1ad805a,
    predict.py:153-235; aimagelab/meshed-memory-transformer at 239100b, models/beam_search/beam_search.py).
    drop: nothing, so that the beam shrinks (sgrvinod/a-PyTorch-Tutorial-to-Image-Captioning at cc9c7e2, caption.py).
    """

    refill = "refill"
    keep = "keep"
    drop = "drop"


@register("decoding", "beam")
class Beam:
    """Holds `num_beams` captions of an image at a time: memory of N images -> Generated of N captions.

    A finished caption is ranked by the sum of its log-probabilities / length ** `length_penalty`, eos
    counted: 0 ranks by the sum, higher favours longer captions. An image is done when it has `num_beams`
    finished captions, and without `early_stopping` not before its best unfinished one ranks below the worst
    of them. Token ids are those of Hugging Face's `generate`, unless `on_end` is another than refill. Words are
    restricted by `DecodingSettings`.
    Raises `UserError` for settings out of range.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        *,
        shared: DecodingSettings,
        num_beams: int,
        length_penalty: float,
        early_stopping: bool,
        on_end: OnEnd,
    ) -> None:
        if num_beams < 1:
            raise UserError(f"decoding.num_beams={num_beams} must be at least 1")
        if not -10 <= length_penalty <= 10:
            raise UserError(
                f"decoding.length_penalty={length_penalty} must be from -10 to 10 (0: off; usual: 1)"
            )
        self.settings, self.logits_processor = shared, shared.logits_processor(vocabulary)
        self.on_end = on_end
        self.num_beams, self.length_penalty, self.early_stopping = num_beams, length_penalty, early_stopping
        self.pad_id, self.bos_id, self.eos_id = vocabulary.pad_id, vocabulary.bos_id, vocabulary.eos_id

    def __call__(self, decoder: Decoder, memory: Memory) -> Generated:
        first = torch.full((len(memory.tokens),), self.bos_id, device=memory.tokens.device)
        with torch.no_grad():
            words, scores = self.search(decoder, decoder.start(memory), first)
        return Generated(words[:, 0], scores[:, 0])

    @torch.no_grad()
    def search(self, decoder: Decoder, state: State, first: torch.Tensor) -> Generated:
        """Continue N images from their `first` words (N,), usually bos: words (N,k,T) and scores (N,k), best first.

        Consumes `state`.
        """
        assert not getattr(decoder, "training", False), "dropout is on: call .eval() before generating"
        max_length = self.settings.length_limit(decoder)
        num_images, device = len(first), first.device
        finished = Finished.none(num_images, self.num_beams, max_length, self.pad_id, device)
        images = torch.arange(num_images, device=device)  # those still searched
        beams = Beams(
            torch.full((num_images, 1, 0), self.pad_id, device=device),
            torch.zeros(num_images, 1, device=device),
        )
        last = first
        for length in range(1, max_length + 1):
            logits, state = decoder.step(last, state)
            log_probs = self.logits_processor(logits.float().log_softmax(1), beams.words.flatten(0, 1))
            candidates, parents = beams.extend(log_probs, 2 * self.num_beams)
            ended = candidates.words[..., -1] == self.eos_id
            candidates = self._in_beam(candidates, finished, images, length**self.length_penalty)
            if length == max_length:
                ended = torch.ones_like(ended)
            finished.add(images, candidates, ended, length**self.length_penalty)
            beams, parents = candidates.best_running(ended, parents, self.num_beams)
            # As indices: a mask would be searched for them, and a GPU waited for, each time.
            searching = self._can_improve(beams, finished.ranks[images], length).nonzero().squeeze(1)
            if length == max_length or not len(searching):
                break
            images, beams, parents = images[searching], beams.of(searching), parents[searching]
            last, state = beams.words[..., -1].flatten(), state.select(parents.flatten())
        return Generated(finished.words[:, :, :length], finished.sums)

    def _in_beam(self, candidates: Beams, finished: Finished, images: torch.Tensor, penalty: float) -> Beams:
        """Return the candidates (n,c) with sums of -inf for those without a place; finished ones may lose theirs."""
        if self.on_end is OnEnd.refill:
            return candidates
        ranks = finished.ranks[images]
        if self.on_end is OnEnd.drop:
            places = self.num_beams - ranks.isfinite().sum(1, keepdim=True)
            outside = torch.arange(candidates.sums.shape[1], device=ranks.device) >= places
            return Beams(candidates.words, candidates.sums.masked_fill(outside, NEVER))
        both = torch.cat([ranks, candidates.sums / penalty], 1)
        worst = both.topk(min(self.num_beams, both.shape[1])).values[:, -1:]
        finished.ranks[images] = ranks.masked_fill(ranks < worst, NEVER)
        return Beams(candidates.words, candidates.sums.masked_fill(candidates.sums / penalty < worst, NEVER))

    def _can_improve(self, beams: Beams, ranks: torch.Tensor, length: int) -> torch.Tensor:
        """Return whether the search of each image continues (n,); `ranks` (n,k) are those of its finished captions."""
        worst = ranks.min(1).values  # -inf while fewer than num_beams have finished
        possible = beams.sums[:, 0] / length**self.length_penalty > worst
        return possible & worst.isneginf() if self.early_stopping else possible


@dataclass(frozen=True)
class Beams:
    """Captions in the making: words (n,k,t) and the sums (n,k) of their log-probabilities, best first."""

    words: torch.Tensor
    sums: torch.Tensor

    def extend(self, log_probs: torch.Tensor, count: int) -> tuple[Beams, torch.Tensor]:
        """Return the `count` best one-word continuations and the rows (n,c) of their parents in the batch."""
        num_images, num_beams = self.sums.shape
        vocab_size = log_probs.shape[1]
        sums = (self.sums.unsqueeze(2) + log_probs.view(num_images, num_beams, vocab_size)).flatten(1)
        sums, index = sums.topk(min(count, sums.shape[1]))
        beam, word = index // vocab_size, index % vocab_size
        words = torch.cat([rows_of(self.words, beam), word.unsqueeze(2)], 2)
        offsets = torch.arange(num_images, device=beam.device).unsqueeze(1) * num_beams
        return Beams(words, sums), beam + offsets

    def best_running(
        self, ended: torch.Tensor, parents: torch.Tensor, count: int
    ) -> tuple[Beams, torch.Tensor]:
        """Return the best `count` captions that have not ended, with their parents."""
        sums, index = self.sums.masked_fill(ended, NEVER).topk(min(count, self.sums.shape[1]))
        return Beams(rows_of(self.words, index), sums), parents.gather(1, index)

    def of(self, images: torch.Tensor) -> Beams:
        """Return the beams of some images, given by their indices."""
        return Beams(self.words[images], self.sums[images])


@dataclass
class Finished:
    """The best finished captions of all N images, best first: words (N,k,T), sums (N,k) and ranks (N,k).

    An empty place has rank -inf.
    """

    words: torch.Tensor
    sums: torch.Tensor
    ranks: torch.Tensor
    pad_id: int

    @staticmethod
    def none(num_images: int, num_beams: int, max_length: int, pad_id: int, device: torch.device) -> Finished:
        places = torch.full((num_images, num_beams), NEVER, device=device)
        words = torch.full((num_images, num_beams, max_length), pad_id, device=device)
        return Finished(words, places, places.clone(), pad_id)

    def add(
        self,
        images: torch.Tensor,
        candidates: Beams,
        ended: torch.Tensor,
        penalty: float,
        *,
        sums: torch.Tensor | None = None,
    ) -> None:
        """Keep the best of what `images` (n,) had and the candidates that `ended` (n,c), by sum / penalty.

        Only the best k candidates count: the others are there so that enough captions remain. `sums` (n,c) are kept
        in the place of those that candidates are ranked by.
        """
        num_beams, max_length = self.words.shape[1:]
        words = candidates.words[:, :num_beams]
        ranks = (candidates.sums[:, :num_beams] / penalty).masked_fill(~ended[:, :num_beams], NEVER)
        sums = (candidates.sums if sums is None else sums)[:, :num_beams]
        words = torch.nn.functional.pad(words, (0, max_length - words.shape[2]), value=self.pad_id)
        ranks, index = torch.cat([self.ranks[images], ranks], 1).topk(num_beams)
        self.words[images] = rows_of(torch.cat([self.words[images], words], 1), index)
        self.sums[images] = torch.cat([self.sums[images], sums], 1).gather(1, index)
        self.ranks[images] = ranks


def rows_of(words: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """words (n,k,t), index (n,c) -> (n,c,t)."""
    return words.gather(1, index.unsqueeze(2).expand(-1, -1, words.shape[2]))
