"""What a run needs of memory, known before: against what real steps take, and with small limits."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.tiny_config import TINY
from torch import nn

import easycap.tasks.memory_estimate as memory
from easycap.config.compose import compose
from easycap.config.schema import check
from easycap.config.validate import check_combinations
from easycap.errors import UserError
from easycap.models.build import build_captioner
from easycap.tasks.dry_run import PlaceholderVocabulary, dry_run, model_on_meta
from easycap.tasks.memory_estimate import check_memory, memory_need
from easycap.training.place import Place
from easycap.types import Inputs

CPU = torch.device("cpu")
MANY = ["decoder=transformer", "image_tokens=split", "image_tokens.count=100000"]


def settings(*overrides: str) -> dict[str, Any]:
    """A tiny run; a group that is chosen has its own settings, not those of the tiny one."""
    chosen = {override.partition("=")[0] for override in overrides if "." not in override.partition("=")[0]}
    kept = [override for override in TINY if override.partition(".")[0] not in chosen]
    return check(compose([*kept, *overrides])[0])


def saved_by_a_real_step(config: dict[str, Any], words: int) -> int:
    """Bytes that autograd keeps of a batch, all of it computed."""
    captioner = build_captioner(config, PlaceholderVocabulary()).train()
    own = {t.untyped_storage().data_ptr() for t in [*captioner.parameters(), *captioner.buffers()]}
    saved: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            saved[storage.data_ptr()] = storage
        return tensor

    trainer, size = config["trainer"], captioner.encoder.preprocessing.size
    count = trainer["batch_size"] * trainer["captions_per_image"]
    rows = torch.arange(trainer["batch_size"]).repeat_interleave(trainer["captions_per_image"])
    ids = torch.randint(4, 1000, (count, words))
    images = torch.zeros(trainer["batch_size"], 3, size, size, dtype=torch.uint8)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = captioner(Inputs(images), ids, rows)
        nn.functional.cross_entropy(output.logits.flatten(0, 1).float(), ids.flatten())
    return sum(storage.nbytes() for storage in saved.values())


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["decoder=transformer", "decoder.dropout=0"],
        ["decoder=attention_lstm", "image_tokens=all"],
        ["decoder=updown", "image_tokens=all"],
        ["image_tokens=resampler", "decoder.dropout=0.1"],
    ],
)
def test_what_is_counted_is_what_a_real_step_saves(overrides: list[str]) -> None:
    config = settings("trainer.batch_size=8", *overrides)
    counted = memory_need(config, model_on_meta(config), CPU, words=9).activations
    real = saved_by_a_real_step(config, words=9)
    assert 0.6 * real < counted <= 1.1 * real


_PEAK = """
import sys, torch
sys.path[:0] = sys.argv[1:3]
from training_step import captioner_of, configured, our_step, random_batch
from easycap.utils.allocator import keep_freed_memory
from easycap.tasks.memory_estimate import memory_need
from easycap.tasks.dry_run import model_on_meta
keep_freed_memory()
config = configured(sys.argv[5:], "fp32")
captions = config["trainer"]["captions_per_image"]
images, words = int(sys.argv[3]), int(sys.argv[4])
need = memory_need(config, model_on_meta(config), torch.device("cpu"), images=images, words=words)
def peak():  # not getrusage's: a child process begins with the peak of the process that started it
    line = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
    return 1024 * int(line.split()[1])
before = peak()
captioner = captioner_of(config, 1000)
batch = random_batch(captioner, images, captions, 1000)
step = our_step(config, captioner, batch)
step(), step()
print(need.step, peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="reads Linux's /proc")
def test_the_peak_of_a_run_is_not_that_of_the_process_that_started_it() -> None:
    big = "held = bytearray(900_000_000)"
    ask = "from easycap.runs.environment import peak_memory as p, torch; print(p(torch.device('cpu')))"
    run = (
        f"import subprocess, sys; print(subprocess.check_output([sys.executable, '-c', {ask!r}], text=True))"
    )
    done = subprocess.run([sys.executable, "-c", f"{big}; {run}"], capture_output=True, text=True, check=True)
    assert 10**7 < int(re.findall(r"\d+", done.stdout)[0]) < 8e8


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="reads Linux's /proc")
@pytest.mark.parametrize(
    ("overrides", "images"),
    [
        (["experiment=easycap/quickstart"], 512),
        (["decoder=transformer", "image_tokens=split", "image_tokens.count=300"], 64),
        (["encoder=resnet18", "encoder.pretrained=false", "encoder.image_size=128"], 64),
    ],
)
def test_the_peak_of_a_process_is_at_most_two_and_a_half_times_the_need(
    overrides: list[str], images: int
) -> None:
    root = Path(__file__).parents[1]
    paths = [str(root / "experiments" / "speed"), str(root / "tests")]
    words = "20"  # random_batch writes as many as the decoder takes
    command = [sys.executable, "-c", _PEAK, *paths, str(images), words, *overrides]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    need, peak = map(int, done.stdout.split()[-2:])
    assert need <= 1.05 * peak <= 1.05 * 2.5 * need, (need, peak)


def test_too_many_image_tokens_are_refused_with_the_figures_and_what_fits() -> None:
    config = settings(*MANY)
    with pytest.raises(UserError, match="a training step of 4 images needs at least") as caught:
        check_memory(config, model_on_meta(config), model_on_meta, available=10**9)
    text = str(caught.value)
    assert "activations" in text and "1.0 GB are available on cpu" in text
    count = int(text.partition("image_tokens.count=")[2].split()[0])
    assert 10 < count < 100_000
    fewer = settings(*MANY, f"image_tokens.count={count}")
    check_memory(fewer, model_on_meta(fewer), model_on_meta, available=10**9)


def test_a_batch_that_is_too_large_gets_the_size_that_fits() -> None:
    config = settings("trainer.batch_size=4096", "data.train_images=5000", "trainer.accumulate=2")
    available = memory_need(config, model_on_meta(config), CPU).step // 3
    with pytest.raises(UserError, match="a training step of 4096 images") as caught:
        check_memory(config, model_on_meta(config), model_on_meta, available=available)
    size = int(str(caught.value).partition("trainer.batch_size=")[2].split()[0])
    assert 4096 // 6 < size < 4096 // 3
    assert f"trainer.accumulate={2 * -(-4096 // size)}" in str(caught.value)
    config["trainer"]["batch_size"] = size
    check_memory(config, model_on_meta(config), model_on_meta, available=available)


def test_a_batch_is_never_larger_than_the_data() -> None:
    small, large = (settings(f"trainer.batch_size={size}") for size in (24, 100_000))
    first, second = (memory_need(config, model_on_meta(config), CPU).step for config in (small, large))
    assert first == second


def test_a_validation_that_is_too_large_is_refused() -> None:
    config = settings(
        "decoding=beam",
        "decoding.num_beams=50",
        "validation.batch_size=4000",
        "validation.images=null",
        "data.val_images=4000",
        "trainer.batch_size=1",
        "trainer.captions_per_image=1",
    )
    need = memory_need(config, model_on_meta(config), CPU)
    with pytest.raises(UserError, match="validation of 4000 images .* lower validation.batch_size"):
        check_memory(config, model_on_meta(config), model_on_meta, available=need.validation - 1)
    check_memory(config, model_on_meta(config), model_on_meta, available=need.validation)


def test_what_optimisers_and_averages_keep_is_counted() -> None:
    def need(*overrides: str) -> memory.Need:
        config = settings(*overrides)
        return memory_need(config, model_on_meta(config), CPU)

    adamw, sgd = need("optim=adamw", "trainer.ema=0.99"), need("optim=sgd")
    assert adamw.gradients == adamw.averages == sgd.moments == adamw.moments // 2 <= adamw.weights
    assert sgd.moments < need("optim=muon").moments < adamw.moments
    frozen = need("trainer.unfreeze_encoder_at_epoch=null")
    assert frozen.gradients < sgd.gradients and frozen.activations < sgd.activations


def test_the_command_refuses_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_memory", lambda: 10**6)
    with pytest.raises(UserError, match="needs at least"):
        dry_run(check(compose([*TINY])[0]), memory=True)
    monkeypatch.setattr(memory, "available_memory", lambda: None)  # nothing says how much there is
    dry_run(check(compose([*TINY])[0]), memory=True)


@pytest.mark.parametrize("objective", ["xe", "scst"])
def test_a_divided_model_needs_less_of_each_rank(monkeypatch: pytest.MonkeyPatch, objective: str) -> None:
    model = ["decoder=gpt2_tiny", "decoder.num_layers=4", "decoder.width=64", "trainer.ema=0.9"]
    config = settings(*model, f"objective={objective}", "trainer.batch_size=2")
    monkeypatch.setattr(memory, "place", lambda: Place(0, 2, 0))
    whole = memory_need(config, model_on_meta(config), CPU)
    divided = config | {"trainer": config["trainer"] | {"shard": True}}
    part = memory_need(divided, model_on_meta(divided), CPU)
    for name in ("gradients", "moments", "averages"):
        assert getattr(part, name) == pytest.approx(getattr(whole, name) / 2, abs=1)
    assert part.validated == pytest.approx(whole.weights, rel=0.01) and whole.validated == 0
    # of the four layers one is gathered at a time, but all where words are sampled
    assert part.gathered < 0.6 * whole.weights if objective == "xe" else part.gathered == part.validated
    monkeypatch.setattr(memory, "_SAFE", 1.0)
    with pytest.raises(UserError, match=r"a training step of .* trainer.shard=true fits"):
        check_memory(config, model_on_meta(config), model_on_meta, available=part.step)


def test_only_language_models_can_be_divided() -> None:
    for words in (["decoder=lstm"], ["task=tags", "tagger=cnn"]):
        with pytest.raises(UserError, match="trainer.shard=true is for language models"):
            check_combinations(check(compose([*words, "trainer.shard=true"])[0]))
    with pytest.raises(UserError, match="trainer.shard=true excludes trainer.compile=true"):
        dry_run(settings("decoder=gpt2_tiny", "trainer.shard=true", "trainer.compile=true"))
