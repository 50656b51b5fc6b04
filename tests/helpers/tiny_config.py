"""The smallest experiment that still goes through everything, as overrides, and the checks before a run."""

from __future__ import annotations

from typing import Any

TINY = [
    "data.size=32",
    "data.train_images=24",
    "data.val_images=6",
    "data.test_images=6",
    "data.workers=1",
    "encoder.image_size=32",
    "encoder.widths=[8,16]",
    "image_tokens.count=2",
    "image_tokens.num_heads=2",
    "decoder.width=16",
    "decoder.num_heads=2",
    "decoder.num_layers=1",
    "trainer.batch_size=4",
    "trainer.epochs=1",
    "trainer.precision=fp32",
    "trainer.log_every_steps=1",
    "validation.images=6",
    "validation.batch_size=3",
    "validation.samples=2",
    "device=cpu",
    "tracking=none",
]


def try_out(config: dict[str, Any]) -> None:
    """Raise what a checked config raises before any work: across groups, then in a dry run."""
    from easycap.config.validate import check_combinations
    from easycap.tasks.dry_run import dry_run

    check_combinations(config)
    dry_run(config)
