"""The contracts between packages: what flows through easycap, and the protocols of its swappable parts.

Shape legend used everywhere: N images, R patches or regions, C encoder channels, K image tokens, T words,
M memory positions, D memory width, B rows (captions; B = N x captions per image), V vocabulary size.

torch is imported for type checkers only: `metrics` and `report` use this package without loading it.
"""

from __future__ import annotations

from easycap.types.examples import (
    Batch,
    ConditionInfo,
    DataIssue,
    Dataset,
    Example,
    ImageInput,
    ImageSource,
    Inputs,
    PrecomputedSettings,
    Preprocessing,
    Stage,
    TextCondition,
    Vocabulary,
)
from easycap.types.modules import (
    CaptionModel,
    Decoder,
    Encoder,
    Features,
    Generated,
    Generator,
    ImageTokens,
    Memory,
    Objective,
    Output,
    State,
    Tagger,
)
from easycap.types.results import Score, Scorer, Tracker, has_oracle

__all__ = [
    "Batch",
    "CaptionModel",
    "ConditionInfo",
    "DataIssue",
    "Dataset",
    "Decoder",
    "Encoder",
    "Example",
    "Features",
    "Generated",
    "Generator",
    "ImageInput",
    "ImageSource",
    "ImageTokens",
    "Inputs",
    "Memory",
    "Objective",
    "Output",
    "PrecomputedSettings",
    "Preprocessing",
    "Score",
    "Scorer",
    "Stage",
    "State",
    "Tagger",
    "TextCondition",
    "Tracker",
    "Vocabulary",
    "has_oracle",
]
