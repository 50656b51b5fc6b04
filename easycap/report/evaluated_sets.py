"""What a report says of sets that a run was evaluated on, besides the run's own data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from easycap.report.scores import mapping
from easycap.runs.reading import data_name
from easycap.utils.text import count_text, score_text


def other_set(result: Mapping[str, Any], label: str) -> Mapping[str, Any]:
    """Return what result.json has of the other set whose scores are called `label`; empty for the run's own data."""
    return mapping(result, "other_sets", _set_name(result, label))


def _set_name(result: Mapping[str, Any], label: str) -> str:
    """The set's name in a label: scores of another decoding are called NAME@DECODING."""
    return label if label in mapping(result, "other_sets") else label.partition("@")[0]


def unknown_words_text(result: Mapping[str, Any], label: str) -> str:
    """Return the share ×100 of another set's reference words that the run's vocabulary lacks, "" if not measured."""
    share = other_set(result, label).get("unknown_reference_words")
    return "" if share is None else score_text(share)


def set_lines(result: Mapping[str, Any], labels: Sequence[str]) -> list[str]:
    """Return a line about each other set among `labels`: which it is, and what the vocabulary lacks of its words."""
    return list(dict.fromkeys(line for label in labels if (line := _line(result, label))))


def _line(result: Mapping[str, Any], label: str) -> str:
    about = other_set(result, label)
    if not about:
        return ""
    split = "all splits" if about["split"] == "all" else f"split {about['split']}"
    images = count_text(about["images"], "image")
    line = f"{_set_name(result, label)}: {images}, {split} of data={data_name(about)}"
    if share := unknown_words_text(result, label):
        line += f"; {share} % of the reference words are not in the run's vocabulary"
        most = about.get("most_frequent_unknown") or ()
        line += f", most often: {', '.join(most)}" if most else ""
    return line
