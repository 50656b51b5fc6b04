"""Every decoder reads every kind of image tokens: one caption of one image, forwards, backwards and generated."""

from __future__ import annotations

import pytest
import torch
from helpers.tiny_config import TINY

from easycap.config.compose import compose
from easycap.config.instantiate import build
from easycap.config.options import options
from easycap.config.schema import check
from easycap.models.build import build_captioner
from easycap.tasks.dry_run import PlaceholderVocabulary
from easycap.types import Batch, Inputs

# One file a class is enough: gpt2_tiny is causal_lm at another size.
DECODERS = ["gpt2_tiny", "transformer", "m2", "lstm", "attention_lstm", "updown", "att2in2"]
OWN = ("decoder.", "image_tokens.", "encoder.", "data.", "tracking")


@pytest.mark.parametrize("tokens", options("image_tokens"))
@pytest.mark.parametrize("decoder", DECODERS)
def test_any_decoder_with_any_image_tokens(decoder: str, tokens: str) -> None:
    small = [o for o in TINY if not o.startswith(OWN)] + ["encoder.image_size=32", "encoder.widths=[8,16]"]
    if decoder in ("lstm", "attention_lstm", "updown", "att2in2"):
        small += ["decoder.embed_dim=16", "decoder.hidden_dim=16"]
    if decoder == "gpt2_tiny":
        small += ["decoder.max_positions=96"]  # room for 64 patches; else it says so
    settings = check(compose([*small, f"decoder={decoder}", f"image_tokens={tokens}"])[0])
    words = PlaceholderVocabulary()
    ids = {"pad_id": 0, "bos_id": 1, "eos_id": 2, "unk_id": 3}
    torch.manual_seed(0)
    captioner = build_captioner(settings, words)
    batch = Batch(
        image_ids=["a"],
        inputs=Inputs(torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8)),
        input_ids=torch.tensor([[1, 7, 8]]),
        targets=torch.tensor([[7, 8, 2]]),
        rows=torch.tensor([0]),
    )
    loss, _ = build("objective", settings["objective"], **ids)(captioner, batch)
    loss.backward()
    seen = [p.grad.abs().sum() for p in captioner.encoder.parameters() if p.grad is not None]
    assert torch.isfinite(loss) and sum(seen) > 0  # the loss depends on the image
    generator = build("decoding", settings["decoding"], vocabulary=words)
    captioner.eval()
    with torch.no_grad():
        assert generator(captioner.decoder, captioner.build_memory(batch.inputs)).words.shape[0] == 1
