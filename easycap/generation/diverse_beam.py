"""Diverse beam search: groups of beams, each of which avoids the words that the groups before it choose (1610.02424).

Shape legend: n images still searched, g groups, k beams of a group, c candidates, t words so far, V vocabulary.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from easycap.errors import UserError
from easycap.generation.beam import Beams, Finished
from easycap.generation.logits_processors import NEVER, DecodingSettings
from easycap.registry import register
from easycap.types import Decoder, Generated, Memory, State, Vocabulary


@register("decoding", "diverse_beam")
class DiverseBeam:
    """Beam search in `num_groups` groups that share `num_beams`: memory of N images -> Generated of N x num_samples
    captions, image by image.

    At each step the groups choose one after the other, and a word's log-probability is lowered by
    `diversity_strength` for each beam of an earlier group that has just chosen it (Hamming diversity; Vijayakumar et
    al. 2018, section 4). The captions that have been found are ranked without that penalty, as those of `Beam`: first
    the best of each group, then the second of each, and so on. With one group this is beam search. Raises `UserError`
    for settings out of range.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        *,
        shared: DecodingSettings,
        num_beams: int,
        num_groups: int,
        diversity_strength: float,
        length_penalty: float,
        early_stopping: bool,
        num_samples: int,
    ) -> None:
        if num_beams < 1:
            raise UserError(f"decoding.num_beams={num_beams} must be at least 1")
        if num_groups < 1 or num_beams % num_groups:
            raise UserError(
                f"decoding.num_groups={num_groups} must be at least 1 and divide decoding.num_beams={num_beams}"
            )
        if not 0 <= diversity_strength < math.inf:
            raise UserError(
                f"decoding.diversity_strength={diversity_strength} must be at least 0 (0: off; usual: 0.2 to 0.8)"
            )
        if not -10 <= length_penalty <= 10:
            raise UserError(
                f"decoding.length_penalty={length_penalty} must be from -10 to 10 (0: off; usual: 1)"
            )
        if not 1 <= num_samples <= num_beams:
            raise UserError(
                f"decoding.num_samples={num_samples} must be at least 1 and at most decoding.num_beams={num_beams}"
            )
        self.settings, self.logits_processor = shared, shared.logits_processor(vocabulary)
        self.num_groups, self.group_size = num_groups, num_beams // num_groups
        self.diversity_strength, self.num_samples = diversity_strength, num_samples
        self.length_penalty, self.early_stopping = length_penalty, early_stopping
        self.pad_id, self.bos_id, self.eos_id = vocabulary.pad_id, vocabulary.bos_id, vocabulary.eos_id

    def __call__(self, decoder: Decoder, memory: Memory) -> Generated:
        first = torch.full((len(memory.tokens),), self.bos_id, device=memory.tokens.device)
        with torch.no_grad():
            groups, length = self._search(decoder, decoder.start(memory), first)
            words, scores = self._ranked(groups)
        chosen = slice(0, self.num_samples)
        return Generated(words[:, chosen, :length].flatten(0, 1), scores[:, chosen].flatten())

    def _search(self, decoder: Decoder, state: State, first: torch.Tensor) -> tuple[list[_Group], int]:
        """Continue N images from their `first` words (N,): all groups with their finished captions, and the length of
        the longest. Consumes `state`.
        """
        assert not getattr(decoder, "training", False), "dropout is on: call .eval() before generating"
        max_length = self.settings.length_limit(decoder)
        groups = [self._empty_group(first, max_length) for _ in range(self.num_groups)]
        images = torch.arange(len(first), device=first.device)  # those still searched
        last = first
        for length in range(1, max_length + 1):
            logits, state = decoder.step(last, state)
            log_probs = logits.float().log_softmax(1)
            if length == 1:  # the groups share the first row of an image
                log_probs = self.logits_processor(log_probs, groups[0].words)
                log_probs = log_probs.unsqueeze(1).expand(-1, self.num_groups, -1)
            else:
                words = torch.stack([group.beams.words for group in groups], 1).flatten(0, 2)
                log_probs = self.logits_processor(log_probs, words)
            # (n,g,k,V): rows are ordered by image, then group, then beam
            num_beams = groups[0].beams.sums.shape[1]
            log_probs = log_probs.reshape(len(images), self.num_groups, num_beams, log_probs.shape[-1])
            rows = self._step_groups(groups, images, log_probs, length, ends=length == max_length)
            running = torch.stack([~group.beams.sums[:, 0].isneginf() for group in groups], 1).any(1)
            searching = running.nonzero().squeeze(1)
            if length == max_length or not len(searching):
                break
            for group in groups:
                group.keep(searching)
            images, rows = images[searching], rows[searching].flatten()
            last = torch.stack([group.beams.words[..., -1] for group in groups], 1).flatten()
            state = state.select(rows)
        return groups, length

    def _step_groups(
        self, groups: list[_Group], images: torch.Tensor, log_probs: torch.Tensor, length: int, *, ends: bool
    ) -> torch.Tensor:
        """Add a word to the beams of each group; return the rows of the batch that they continue (n,g,k).

        A group that is done for an image has beams of sum -inf there.
        """
        num_images, num_groups, num_beams, vocab_size = log_probs.shape
        chosen = log_probs.new_zeros(num_images, vocab_size)  # how many beams have chosen a word in this step
        rows = []
        for number, group in enumerate(groups):
            own = log_probs[:, number]
            penalised = own - self.diversity_strength * chosen.unsqueeze(1)
            parents = group.step(
                images,
                own.flatten(0, 1),
                penalised.flatten(0, 1),
                length**self.length_penalty,
                self.eos_id,
                ends,
            )
            running = (~group.beams.sums.isneginf()).to(chosen.dtype)
            chosen.scatter_add_(1, group.beams.words[..., -1], running)
            group.end(images, length**self.length_penalty, early=self.early_stopping)
            if length == 1:
                rows.append(parents)
            else:
                image, beam = parents // num_beams, parents % num_beams
                rows.append((image * num_groups + number) * num_beams + beam)
        return torch.stack(rows, 1)

    def _empty_group(self, first: torch.Tensor, max_length: int) -> _Group:
        num_images, device = len(first), first.device
        words = torch.full((num_images, 1, 0), self.pad_id, device=device)
        sums = torch.zeros(num_images, 1, device=device)
        finished = Finished.none(num_images, self.group_size, max_length, self.pad_id, device)
        return _Group(Beams(words, sums), sums, finished)

    def _ranked(self, groups: list[_Group]) -> Generated:
        """Return all captions of N images in the order described above: words (N,g*k,T) and scores (N,g*k)."""
        empty = torch.stack([group.finished.ranks for group in groups], 1).isneginf()  # (N,g,k)
        words = torch.stack([group.finished.words for group in groups], 1)
        words = words.masked_fill(empty.unsqueeze(3), self.pad_id)
        sums = torch.stack([group.finished.sums for group in groups], 1).masked_fill(empty, NEVER)
        lengths = (words != self.pad_id).sum(-1).clamp(min=1)
        ranks = sums / lengths**self.length_penalty
        ranks, within = ranks.sort(dim=2, descending=True, stable=True)
        across = ranks.argsort(dim=1, descending=True, stable=True)
        # the group and the place in it of each caption (N,k,g): k-th captions of all groups come one after another
        group, place = across.transpose(1, 2), within.gather(1, across).transpose(1, 2)
        index = (group * self.group_size + place).flatten(1)
        words, sums = words.flatten(1, 2), sums.flatten(1)
        return Generated(
            words.gather(1, index.unsqueeze(2).expand(-1, -1, words.shape[2])), sums.gather(1, index)
        )


@dataclass
class _Group:
    """A group's captions in the making, whose sums are lowered by the penalties; their `own_sums` (n,k), which are not;
    and the finished captions of all N images, ranked with the penalties and stored without.
    """

    beams: Beams
    own_sums: torch.Tensor
    finished: Finished

    @property
    def words(self) -> torch.Tensor:
        """The words so far (n*k,t)."""
        return self.beams.words.flatten(0, 1)

    def step(
        self,
        images: torch.Tensor,
        own: torch.Tensor,
        penalised: torch.Tensor,
        penalty: float,
        eos_id: int,
        ends: bool,
    ) -> torch.Tensor:
        """Add the best words by log-probabilities `penalised` (n*k,V); return the rows (n,k) of this group's beams that
        are continued.

        `own` are the model's own log-probabilities, `penalty` divides the sums of captions that end here, and `ends`
        says that all do.
        """
        size = self.finished.words.shape[1]
        candidates, parents = self.beams.extend(penalised, 2 * size)
        ended = candidates.words[..., -1] == eos_id
        own_sums = self._own_sums(own, candidates, parents)
        self.finished.add(images, candidates, ended | ends, penalty, sums=own_sums)
        beams, parents = candidates.best_running(ended, parents, size)
        self.beams, self.own_sums = beams, self._own_sums(own, beams, parents)
        return parents

    def _own_sums(self, own: torch.Tensor, beams: Beams, parents: torch.Tensor) -> torch.Tensor:
        return self.own_sums.flatten()[parents] + own[parents, beams.words[..., -1]]

    def end(self, images: torch.Tensor, penalty: float, *, early: bool) -> None:
        """Give up the beams of images whose finished captions cannot improve, or, if `early`, are enough."""
        worst = self.finished.ranks[images].min(1).values  # -inf while fewer than k have finished
        possible = self.beams.sums[:, 0] / penalty > worst
        if early:
            possible &= worst.isneginf()
        self.beams = Beams(self.beams.words, self.beams.sums.masked_fill(~possible.unsqueeze(1), NEVER))

    def keep(self, images: torch.Tensor) -> None:
        """Keep the beams of some images, given by their indices."""
        self.beams, self.own_sums = self.beams.of(images), self.own_sums[images]
