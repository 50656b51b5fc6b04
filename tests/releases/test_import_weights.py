"""`easycap import SYSTEM FILE...`: log-probabilities are those of the releases' formulas on the files' own weights, and
the run is one as any.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from helpers.region_files import regions, write_folder
from helpers.released_files import (
    RELEASES,
    RUOTIANLUO,
    WITH_MORE_WORDS,
    WORDS,
    Attention,
    DecoderWithAttention,
    Encoder,
    clipcap_weights,
    m2_shapes,
    overrides_of,
    own_module,
    random_weights,
    write_clipcap,
    write_m2,
    write_ruotianluo,
    write_sgrvinod,
)
from helpers.small_data import write_images
from helpers.tiny_tokenizers import tiny_gpt2
from torch import nn

import easycap
from easycap.cli import main
from easycap.config.compose import compose
from easycap.config.schema import check
from easycap.errors import UserError
from easycap.releases.imported_run import import_release
from easycap.releases.systems import SYSTEMS
from easycap.runs.find import checkpoint_of
from easycap.tasks.create import load_task
from easycap.tasks.preflight import about_initial_weights

TABLE = "gpt.transformer.wte.weight"
CAPTION = ["a", "photo", "of", "dog"]
Weights = dict[str, torch.Tensor]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with COCO (Karpathy's splits of 6 images) and features of its images."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EASYCAP_OUTPUTS", str(tmp_path / "outputs"))
    (tmp_path / "COCO" / "train2014").mkdir(parents=True)
    write_images(tmp_path / "COCO", *(f"val2014/{n}.jpg" for n in range(6)))
    images = [
        {"cocoid": n, "filename": f"{n}.jpg", "filepath": "val2014", "split": split}
        | {"sentences": [{"raw": f"A photo of thing {n % 3}."}] * 2}
        for n, split in enumerate(["train", "train", "val", "val", "test", "test"])
    ]
    (tmp_path / "COCO" / "dataset_coco.json").write_text(json.dumps({"images": images}))
    write_folder(tmp_path / "features", [str(n) for n in range(6)])
    return tmp_path


DATA = ["data.root=COCO"]


def run_of(place: Path, system: str, files: list[Path], *overrides: str) -> Path:
    given = [*DATA, *overrides_of(system), *overrides]
    return import_release(system, files, given, folder=place / "run", command="test")[0]


@torch.no_grad()
def log_probabilities(run: Path, image: int) -> torch.Tensor:
    """Those of the words of CAPTION and the end, for an image of the test split."""
    task = load_task(checkpoint_of(run), device="cpu", with_data=True)
    example = next(one for one in task.examples("test") if one.id == str(image))
    vocabulary = task.vocabulary
    ids = [vocabulary.bos_id, *vocabulary.encode(" ".join(CAPTION)), vocabulary.eos_id]
    logits = task.model(task.pipeline.inputs([example]), torch.tensor([ids[:-1]]), torch.tensor([0])).logits
    return logits[0].log_softmax(-1)[torch.arange(len(ids) - 1), torch.tensor(ids[1:])]


# ------------------------------------------------------------------------------------------- the formulas


def linear(w: Weights, name: str, x: torch.Tensor) -> torch.Tensor:
    return x @ w[f"{name}.weight"].T + w.get(f"{name}.bias", 0)


def maxout(sums: torch.Tensor, c: torch.Tensor, more: torch.Tensor | float = 0.0) -> tuple[torch.Tensor, ...]:
    write, forget, show = sums[: len(c) * 3].sigmoid().chunk(3)
    first, second = (sums[len(c) * 3 :] + more).chunk(2)
    c = forget * c + write * torch.maximum(first, second)
    return show * c.tanh(), c


def lstm(
    w: Weights, name: str, x: torch.Tensor, h: torch.Tensor, c: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    sums = (
        w[f"{name}.weight_ih"] @ x + w[f"{name}.bias_ih"] + w[f"{name}.weight_hh"] @ h + w[f"{name}.bias_hh"]
    )
    write, forget, value, show = sums.chunk(4)
    c = forget.sigmoid() * c + write.sigmoid() * value.tanh()
    return show.sigmoid() * c.tanh(), c


def attend(w: Weights, h: torch.Tensor, embedded: torch.Tensor) -> torch.Tensor:
    keys = linear(w, "ctx2att", embedded) + linear(w, "core.attention.h2att", h)
    return linear(w, "core.attention.alpha_net", keys.tanh()).squeeze(1).softmax(0) @ embedded


def newfc(w: Weights, seen: torch.Tensor, ids: list[int]) -> list[torch.Tensor]:
    h = c = torch.zeros(w["_core.h2h.weight"].shape[1])
    found = []
    for x in [linear(w, "fc_embed", seen.mean(0)), *w["embed.weight"][ids]]:
        h, c = maxout(linear(w, "_core.i2h", x) + linear(w, "_core.h2h", h), c)
        found.append(linear(w, "logit", h))
    return found[1:]


def updown(w: Weights, seen: torch.Tensor, ids: list[int]) -> list[torch.Tensor]:
    embedded = linear(w, "att_embed.0", seen).relu()
    mean = linear(w, "fc_embed.0", seen.mean(0)).relu()
    h1 = c1 = h2 = c2 = torch.zeros(w["logit.weight"].shape[1])
    found = []
    for x in w["embed.0.weight"][ids].relu():
        h1, c1 = lstm(w, "core.att_lstm", torch.cat([h2, mean, x]), h1, c1)
        h2, c2 = lstm(w, "core.lang_lstm", torch.cat([attend(w, h1, embedded), h1]), h2, c2)
        found.append(linear(w, "logit", h2))
    return found


def att2in2(w: Weights, seen: torch.Tensor, ids: list[int]) -> list[torch.Tensor]:
    embedded = linear(w, "att_embed.0", seen).relu()
    h = c = torch.zeros(w["logit.weight"].shape[1])
    found = []
    for x in w["embed.0.weight"][ids].relu():
        more = linear(w, "core.a2c", attend(w, h, embedded))
        h, c = maxout(linear(w, "core.i2h", x) + linear(w, "core.h2h", h), c, more)
        found.append(linear(w, "logit", h))
    return found


def layer_norm(w: Weights, name: str, x: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"])


def one_head(w: Weights, name: str, x: torch.Tensor, seen: torch.Tensor, causal: bool) -> torch.Tensor:
    """Attention with its residual and norm; memory vectors where there are some."""
    part = f"{name}.attention"
    q, k, v = linear(w, f"{part}.fc_q", x), linear(w, f"{part}.fc_k", seen), linear(w, f"{part}.fc_v", seen)
    if f"{part}.m_k" in w:
        vectors = w[f"{part}.m_k"][0], w[f"{part}.m_v"][0]
        k = torch.cat([k, vectors[0] * k.shape[1] ** 0.5])
        v = torch.cat([v, vectors[1] * len(vectors[1]) ** 0.5])
    scores = q @ k.T / k.shape[1] ** 0.5
    if causal:
        scores = scores.masked_fill(torch.ones_like(scores).triu(1).bool(), float("-inf"))
    out = linear(w, f"{part}.fc_o", scores.softmax(-1) @ v)
    return layer_norm(w, f"{name}.layer_norm", x + out)


def feed_forward(w: Weights, name: str, x: torch.Tensor) -> torch.Tensor:
    out = linear(w, f"{name}.pwff.fc2", linear(w, f"{name}.pwff.fc1", x).relu())
    return layer_norm(w, f"{name}.pwff.layer_norm", x + out)


def m2(w: Weights, seen: torch.Tensor, ids: list[int]) -> torch.Tensor:
    """With zeros for the regions that are missing of 50; positions begin at row 1 of their table."""
    seen = torch.cat([seen, torch.zeros(50 - len(seen), seen.shape[1])])
    x = layer_norm(w, "encoder.layer_norm", linear(w, "encoder.fc", seen).relu())
    levels = []
    for layer in range(2):
        place = f"encoder.layers.{layer}"
        x = feed_forward(w, place, one_head(w, f"{place}.mhatt", x, x, causal=False))
        levels.append(x)
    y = w["decoder.word_emb.weight"][ids] + w["decoder.pos_emb.weight"][1 : len(ids) + 1]
    for layer in range(2):
        place = f"decoder.layers.{layer}"
        y = one_head(w, f"{place}.self_att", y, y, causal=True)
        total = torch.zeros_like(y)
        for number, level in enumerate(levels, 1):
            c = one_head(w, f"{place}.enc_att", y, level, causal=False)
            total = total + linear(w, f"{place}.fc_alpha{number}", torch.cat([y, c], -1)).sigmoid() * c
        y = feed_forward(w, place, total / len(levels) ** 0.5)
    return linear(w, "decoder.fc", y)


def unbiased_norm(w: Weights, name: str, x: torch.Tensor) -> torch.Tensor:
    return w[f"{name}.a_2"] * (x - x.mean(-1, True)) / (x.std(-1, keepdim=True) + 1e-6) + w[f"{name}.b_2"]


def pre_norm_layer(
    w: Weights, place: str, x: torch.Tensor, memory: torch.Tensor | None, causal: bool
) -> torch.Tensor:
    def attention(name: str, x: torch.Tensor, seen: torch.Tensor, causal: bool) -> torch.Tensor:
        q, k, v = (linear(w, f"{name}.linears.{i}", y) for i, y in enumerate((x, seen, seen)))
        scores = q @ k.T / k.shape[1] ** 0.5
        if causal:
            scores = scores.masked_fill(torch.ones_like(scores).triu(1).bool(), float("-inf"))
        return linear(w, f"{name}.linears.3", scores.softmax(-1) @ v)

    y = unbiased_norm(w, f"{place}.sublayer.0.norm", x)
    x = x + attention(f"{place}.self_attn", y, y, causal)
    if memory is not None:
        y = unbiased_norm(w, f"{place}.sublayer.1.norm", x)
        x = x + attention(f"{place}.src_attn", y, memory, False)
    y = unbiased_norm(w, f"{place}.sublayer.{1 if memory is None else 2}.norm", x)
    y = linear(w, f"{place}.feed_forward.w_1", y).relu()
    return x + linear(w, f"{place}.feed_forward.w_2", y)


def transformer(w: Weights, seen: torch.Tensor, ids: list[int]) -> torch.Tensor:
    x = linear(w, "att_embed.0", seen).relu()
    for layer in range(2):
        x = pre_norm_layer(w, f"model.encoder.layers.{layer}", x, None, False)
    memory = unbiased_norm(w, "model.encoder.norm", x)
    width = memory.shape[1]
    angles = torch.arange(len(ids)).unsqueeze(1) / 10_000 ** (torch.arange(0, width, 2) / width)
    y = w["model.tgt_embed.0.lut.weight"][ids] * width**0.5
    y = y + torch.stack([angles.sin(), angles.cos()], -1).flatten(1)
    for layer in range(2):
        y = pre_norm_layer(w, f"model.decoder.layers.{layer}", y, memory, True)
    return linear(w, "model.generator.proj", unbiased_norm(w, "model.decoder.norm", y))


def test_m2_equals_the_release(place: Path) -> None:
    run = run_of(place, "m2", write_m2(place / "files"), "decoder.num_heads=1")
    itos = ["<unk>", "<pad>", "<bos>", "<eos>", *WORDS]
    w = random_weights(m2_shapes(len(itos)))
    ids = [itos.index(word) for word in ["<bos>", *CAPTION, "<eos>"]]
    for image in (4, 5):
        expected = m2(w, torch.from_numpy(regions(str(image))), ids[:-1]).log_softmax(-1)
        expected = expected[torch.arange(len(ids) - 1), torch.tensor(ids[1:])]
        torch.testing.assert_close(log_probabilities(run, image), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("formula", [newfc, updown, att2in2, transformer])
def test_ruotianluos_models_equal_the_release(place: Path, formula: Callable) -> None:
    name = formula.__name__
    run = run_of(place, "ruotianluo", write_ruotianluo(place / "files", name))
    w = random_weights(RUOTIANLUO[name](len(WORDS) + 2))
    ids = [0, *(WORDS.index(word) + 1 for word in CAPTION), 0]  # 0 begins and ends a caption
    for image in (4, 5):
        logits = torch.stack(list(formula(w, torch.from_numpy(regions(str(image))), ids[:-1])))
        expected = logits.log_softmax(-1)[torch.arange(len(ids) - 1), torch.tensor(ids[1:])]
        torch.testing.assert_close(log_probabilities(run, image), expected, rtol=1e-4, atol=1e-5)


def sgrvinod(w: Weights, seen: torch.Tensor, ids: list[int]) -> list[torch.Tensor]:
    """seen (196,C)."""
    h, c = (linear(w, name, seen.mean(0)) for name in ("init_h", "init_c"))
    found = []
    for x in w["embedding.weight"][ids]:
        keys = linear(w, "attention.encoder_att", seen) + linear(w, "attention.decoder_att", h)
        alpha = linear(w, "attention.full_att", keys.relu()).squeeze(1).softmax(0)
        context = linear(w, "f_beta", h).sigmoid() * (alpha @ seen)
        h, c = lstm(w, "decode_step", torch.cat([x, context]), h, c)
        found.append(linear(w, "fc", h))
    return found


def test_sgrvinod_equals_the_release(place: Path) -> None:
    files = write_sgrvinod(place / "files")
    with own_module("models", **{one.__name__: one for one in (Encoder, Attention, DecoderWithAttention)}):
        whole = torch.load(files[0], weights_only=False)
    numbers = json.loads(files[1].read_text())
    trunk = whole["encoder"].resnet.float().eval()
    ids = [numbers[word] for word in ["<start>", *CAPTION, "<end>"]]
    run = run_of(place, "sgrvinod", files)
    task = load_task(checkpoint_of(run), device="cpu", with_data=True)
    for image in (4, 5):
        (example,) = (one for one in task.examples("test") if one.id == str(image))
        pixels = task.pipeline.inputs([example]).images / 255
        pixels = (pixels - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / torch.tensor(
            [0.229, 0.224, 0.225]
        )[:, None, None]
        with torch.no_grad():
            seen = nn.functional.adaptive_avg_pool2d(trunk(pixels), 14)[0].flatten(1).T
            logits = torch.stack(sgrvinod(whole["decoder"].state_dict(), seen, ids[:-1]))
        expected = logits.log_softmax(-1)[torch.arange(len(ids) - 1), torch.tensor(ids[1:])]
        torch.testing.assert_close(log_probabilities(run, image), expected, rtol=1e-4, atol=1e-4)


def gpt2(w: Weights, x: torch.Tensor) -> torch.Tensor:
    """x (T,D) -> logits (T,V) by one head and the causal mask."""

    def dense(name: str, x: torch.Tensor) -> torch.Tensor:  # GPT-2's matrices stand the other way round
        return x @ w[f"{name}.weight"] + w[f"{name}.bias"]

    x = x + w["gpt.transformer.wpe.weight"][: len(x)]
    for layer in range(2):
        place = f"gpt.transformer.h.{layer}"
        q, k, v = dense(f"{place}.attn.c_attn", layer_norm(w, f"{place}.ln_1", x)).chunk(3, -1)
        scores = (q @ k.T / k.shape[1] ** 0.5).masked_fill(torch.ones(len(x), len(x)).triu(1).bool(), -1e9)
        x = x + dense(f"{place}.attn.c_proj", scores.softmax(-1) @ v)
        inner = dense(f"{place}.mlp.c_fc", layer_norm(w, f"{place}.ln_2", x))
        inner = 0.5 * inner * (1 + ((2 / torch.pi) ** 0.5 * (inner + 0.044715 * inner**3)).tanh())
        x = x + dense(f"{place}.mlp.c_proj", inner)
    return layer_norm(w, "gpt.transformer.ln_f", x) @ w["gpt.transformer.wte.weight"].T


def image_tokens_of_clipcap(w: Weights, mapper: str, vector: torch.Tensor, heads: int) -> torch.Tensor:
    """vector (C,) -> (K,D)."""
    width = w["gpt.transformer.wte.weight"].shape[1]
    if mapper == "mlp":
        hidden = linear(w, "clip_project.model.0", vector).tanh()
        return linear(w, "clip_project.model.2", hidden).view(-1, width)
    if mapper == "split":
        return linear(w, "clip_project", vector).view(-1, width)
    pieces = linear(w, "clip_project.linear", vector / vector.norm()).view(-1, width)
    x = torch.cat([pieces, w["clip_project.prefix_const"]])
    for layer in range(2):
        place = f"clip_project.transformer.layers.{layer}"
        y = layer_norm(w, f"{place}.norm1", x)
        k, v = linear(w, f"{place}.attn.to_keys_values", y).chunk(2, -1)
        q = linear(w, f"{place}.attn.to_queries", y)
        found = []
        for qh, kh, vh in zip(*(part.chunk(heads, -1) for part in (q, k, v)), strict=True):
            found.append((qh @ kh.T * kh.shape[1] ** -0.5).softmax(-1) @ vh)
        x = x + linear(w, f"{place}.attn.project", torch.cat(found, -1))
        y = linear(w, f"{place}.mlp.fc1", layer_norm(w, f"{place}.norm2", x)).relu()
        x = x + linear(w, f"{place}.mlp.fc2", y)
    return x[len(pieces) :]


@pytest.mark.parametrize("mapper", ["mlp", "mapper", "split"])
def test_clipcap_equals_the_release(place: Path, mapper: str) -> None:
    run = run_of(place, "clipcap", write_clipcap(place / "files", mapper))
    w = clipcap_weights(mapper)
    vocabulary = load_task(checkpoint_of(run), device="cpu").vocabulary
    ids = [*vocabulary.encode(" ".join(CAPTION)), *vocabulary.encode(""), vocabulary.eos_id]
    assert vocabulary.decode(ids) == " ".join(CAPTION) + "."
    for image in (4, 5):
        seen = torch.from_numpy(regions(str(image))).mean(0)
        tokens = image_tokens_of_clipcap(w, mapper, seen, heads=8)
        x = torch.cat([tokens, w["gpt.transformer.wte.weight"][ids[:-1]]])
        expected = gpt2(w, x)[len(tokens) - 1 :].log_softmax(-1)[torch.arange(len(ids)), torch.tensor(ids)]
        torch.testing.assert_close(log_probabilities(run, image), expected, rtol=1e-4, atol=1e-4)


def test_a_frozen_gpt2_that_is_not_in_the_file_is_that_of_the_config(place: Path) -> None:
    """With the same GPT-2 in a folder, the model is that of the file which has it."""
    whole = write_clipcap(place / "whole", "mlp")
    run = run_of(place, "clipcap", whole)
    w = clipcap_weights("mlp")
    ends = {"bos_token_id": len(w[TABLE]) - 1, "eos_token_id": len(w[TABLE]) - 1}
    config = {"n_embd": 16, "n_layer": 2, "n_head": 1, "n_positions": 80, "vocab_size": len(w[TABLE])} | ends
    lm = transformers.GPT2LMHeadModel(transformers.GPT2Config(**config))
    masks = (".attn.bias", ".attn.masked_bias")
    own = {name.removeprefix("gpt."): t for name, t in w.items() if name.startswith("gpt.")}
    lm.load_state_dict({name: t for name, t in own.items() if not name.endswith(masks)})
    lm.save_pretrained(place / "gpt2")
    for file in tiny_gpt2().iterdir():
        shutil.copy(file, place / "gpt2")
    settings = [
        *DATA,
        *overrides_of("m2"),
        f"vocab.path={place / 'gpt2'}",
        f"decoder.pretrained={place / 'gpt2'}",
    ]
    files = write_clipcap(place / "files", "mlp", gpt2=False)
    other = import_release(
        "clipcap", files, [*settings, "image_tokens.count=3"], folder=place / "other", command="test"
    )[0]
    torch.testing.assert_close(log_probabilities(other, 4), log_probabilities(run, 4))


# ------------------------------------------------------------------------------------------- the run


@pytest.mark.parametrize(("system", "model"), RELEASES)
def test_a_run_of_released_weights_is_one_as_any(
    place: Path, system: str, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is evaluated, compared and trained further."""
    files = RELEASES[system, model](place / "files")
    given = [*DATA, *overrides_of(system)]
    assert main(["import", system, *map(str, files), *given, "--folder", "run"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("run: run\n") and "not known: " in printed
    about = json.loads((place / "run" / "result.json").read_text())["imported"]
    assert [about["system"], about["model"]] == [system, model] and about["not_known"]
    assert [file["name"] for file in about["files"]] == [file.name for file in files]
    assert all(len(file["sha256"]) == 64 for file in about["files"])
    assert main(["evaluate", "run", "--device", "cpu"]) == 0
    page = (place / "run" / "report.html").read_text()
    assert f"{files[0].name} (sha256 {about['files'][0]['sha256'][:12]})" in page
    assert main(["compare", "run"]) == 0
    shown = json.loads((place / "run" / "captions.test.json").read_text())
    assert [row["image_id"] for row in shown] == [4, 5]
    assert system == "clipcap" or all(set(row["caption"].split()) <= {*WORDS, "<unk>"} for row in shown)
    further = ["init_from=run", "trainer.max_steps=1", "trainer.batch_size=2", "tracking=none", "device=cpu"]
    assert main(["train", *further, "trainer.workers=0", "hydra.run.dir=further"]) == 0
    assert (place / "further" / "checkpoints" / "best").is_dir()


def test_card_and_page_of_imported_weights_name_the_release_and_claim_no_training(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = write_sgrvinod(place / "files")
    run = run_of(place, "sgrvinod", files)
    assert main(["evaluate", str(run), "--device", "cpu"]) == 0
    page = (run / "report.html").read_text()
    assert "<span>decoder</span>" in page and "<span>objective</span>" not in page
    easycap.load(run, device="cpu").save_pretrained(place / "shared")
    card = (place / "shared" / "README.md").read_text()
    for file in files:
        assert f"`{file.name}`, sha256 `{hashlib.sha256(file.read_bytes()).hexdigest()}`" in card
    assert "from the release of sgrvinod (`" in card and "base_model" not in card
    for claim in ("model trained with", "Trained on", "objective:", "objective xe", "seed:", "datasets:"):
        assert claim not in card
    assert "Commands used for scoring" in card and "release, whose licence applies" in card
    easycap.load(place / "shared", device="cpu").save_pretrained(place / "again" / "shared")
    assert (place / "again" / "shared" / "README.md").read_text() == card


def test_what_training_further_changes_is_told_of_the_model_alone(place: Path) -> None:
    run = run_of(place, "m2", write_m2(place / "files"))
    words = [f"init_from={run}", "optim=sgd", "trainer.epochs=77", "decoding=beam"]
    config = check(compose(words).config)
    (_, told), *_ = about_initial_weights(config, nn.Module(), resumed=False)
    assert "decoding=beam" in told or "decoding." in told
    assert "optim" not in told and "epochs" not in told and "objective" not in told


def test_every_system_has_files_here() -> None:
    assert {system for system, _ in RELEASES} == set(SYSTEMS)


@pytest.fixture
def left(place: Path) -> Callable[[], list[str]]:
    """What lies in the current folder and in the outputs besides the files of the test."""
    before = {"COCO", "features", "files", "other"}
    return lambda: [path.name for path in place.iterdir() if path.name not in before]


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["import", *words]) == 1
    printed = capsys.readouterr().err
    assert printed.startswith("easycap: ") and printed.count("\n") == 1, printed
    return printed


def test_what_cannot_be_imported_is_told_in_one_sentence(
    place: Path, left: Callable[[], list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    m2_weights, m2_words = map(str, write_m2(place / "files"))
    (clipcap,) = map(str, write_clipcap(place / "files"))
    infos = [str(write_ruotianluo(place / "files" / "other", "newfc")[0])]
    (place / "files" / "some.safetensors").write_bytes(b"1")
    for words, sentence in (
        (["m3", m2_weights], "there is no system 'm3'; did you mean 'm2'"),
        (
            ["files"],
            "files is a folder and not a system: a run of easycap, of an earlier version too, is used as it",
        ),
        (["m2", "nowhere.pth"], "nowhere.pth is not a file"),
        (["m2", m2_words], "holds weights of m2"),
        (["m2", m2_weights, m2_words, "decoder.width=128"], "the weights do not fit the config: decoder."),
        (["m2", m2_weights, m2_words, "--folder", "files"], "files exists already"),
        (
            ["m2", m2_weights, m2_words, "--split", "val"],
            "--split and --name are for easycap import captions",
        ),
        (["m2", m2_weights, m2_words, "data.root=COCO"], "encoder.features"),
        (
            ["m2", "files/some.safetensors"],
            "some.safetensors is of safetensors, which no release here uses: give the",
        ),
        (
            ["m2", m2_weights, m2_words, "encoder.features=nosuch"],
            "nosuch does not exist: it must be a folder",
        ),
        (
            ["ruotianluo", *infos, "files/vocab.pkl"],
            "no vocabulary is in files/vocab.pkl: use easycap import",
        ),
        (["clipcap", clipcap, "files/vocab.pkl"], "ClipCap's weights are one file: give it alone"),
    ):
        own = [] if words[-1].startswith("encoder.features") else overrides_of("m2")
        given = [*DATA, *own] if words[-1] != "data.root=COCO" else []
        paths = [str(Path(word).relative_to(place)) if word.startswith("/") else word for word in words]
        assert sentence in refused([*paths, *given], capsys)
        assert left() == []


# A model of each system; of one with several, the first.
OF_EACH = {system: (system, model) for system, model in reversed(RELEASES)}


@pytest.mark.parametrize("named", SYSTEMS)
@pytest.mark.parametrize("system", SYSTEMS)
def test_the_system_whose_weights_a_file_holds_is_named(
    place: Path, left: Callable[[], list[str]], capsys: pytest.CaptureFixture[str], system: str, named: str
) -> None:
    if system == named:
        assert f"give the files of the release: easycap import {system} " in refused([system], capsys)
        return
    _, model = OF_EACH[system]
    files = [str(path.relative_to(place)) for path in RELEASES[OF_EACH[system]](place / "files")]
    whose = system if model == system else f"{system}'s {model}"
    sentence = f"holds the weights of {whose}: use easycap import {system} {' '.join(files)}"
    assert sentence in refused([named, *files, *DATA, *overrides_of(system)], capsys)
    assert left() == []


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_vocabulary_that_is_missing_or_of_another_size_is_told(
    place: Path,
    left: Callable[[], list[str]],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    system: str,
) -> None:
    weights, *words = (str(path.relative_to(place)) for path in RELEASES[OF_EACH[system]](place / "files"))
    given = [weights, *DATA]
    if words:
        assert "the vocabulary is missing: use easycap import" in refused([system, *given], capsys)
        other = WITH_MORE_WORDS[system](place / "other", [*WORDS, "more"])[1]
        assert f"words, but the weights of {weights} are for" in refused(
            [system, str(other), *given, *overrides_of(system)], capsys
        )
    else:
        monkeypatch.setattr("easycap.utils.hub._reachable", lambda: False)
        monkeypatch.setenv("HF_HOME", str(place / "files"))
        sentence = refused([system, *given, *overrides_of("m2")], capsys)
        assert "vocab=gpt2 has no tokenizer" in sentence and "pass vocab.path=FOLDER" in sentence
        write_clipcap(place / "files", words=300)
        sentence = refused([system, *given, *overrides_of(system)], capsys)
        assert f"has 301 tokens, but the weights of {weights} are for 300" in sentence
    assert left() == []


def test_a_clipcap_without_its_language_model_needs_one(
    place: Path, left: Callable[[], list[str]], capsys: pytest.CaptureFixture[str], monkeypatch
) -> None:
    monkeypatch.setattr("easycap.utils.hub._reachable", lambda: False)
    monkeypatch.setenv("HF_HOME", str(place / "files"))
    (file,) = write_clipcap(place / "files", gpt2=False)
    sentence = refused(["clipcap", str(file), *DATA, *overrides_of("clipcap")], capsys)
    assert (
        f"{file} holds no language model: give that which it was trained with, decoder.pretrained="
        in sentence
    )
    assert left() == []


@pytest.mark.parametrize(("system", "model"), RELEASES)
def test_a_file_cut_short_leaves_nothing(
    place: Path, left: Callable[[], list[str]], capsys: pytest.CaptureFixture[str], system: str, model: str
) -> None:
    weights, *words = RELEASES[system, model](place / "files")
    weights.write_bytes(weights.read_bytes()[:-500])
    given = [system, str(weights), *map(str, words), *DATA, *overrides_of(system)]
    assert "cut off" in refused(given, capsys)
    assert left() == []


def test_models_and_options_without_an_importer_are_named(place: Path) -> None:
    files = write_ruotianluo(place / "files", "updown", use_bn=2)
    with pytest.raises(UserError, match="says use_bn=2, but only use_bn=0 can be imported"):
        run_of(place, "ruotianluo", files)
    torch.save({"core.a2h.weight": torch.zeros(2)}, files[0])
    with pytest.raises(
        UserError, match="ruotianluo's att2all2, which cannot be imported; those that can are newfc, updown"
    ):
        run_of(place, "ruotianluo", files)


def test_words_that_a_release_lacks_have_no_probability(place: Path) -> None:
    run = run_of(place, "ruotianluo", write_ruotianluo(place / "files", "newfc"))
    task = load_task(checkpoint_of(run), device="cpu", with_data=True)
    inputs = task.pipeline.inputs(task.examples("test"))
    logits = task.model(inputs, torch.full((2, 1), task.vocabulary.bos_id), torch.arange(2)).logits
    chances = logits[:, 0].softmax(-1)
    assert not chances[:, [task.vocabulary.pad_id, task.vocabulary.bos_id]].any()
    assert chances[:, [task.vocabulary.eos_id, task.vocabulary.unk_id]].all()


# ------------------------------------------------------------------------------------------- the way back


@pytest.mark.parametrize("mapper", ["mlp", "mapper", "split"])
def test_an_imported_clipcap_is_exported_as_the_file_it_was(place: Path, mapper: str) -> None:
    run = run_of(place, "clipcap", write_clipcap(place / "files", mapper))
    assert main(["export", str(run), "--clipcap", "again.pt"]) == 0
    w, again = clipcap_weights(mapper), torch.load(place / "again.pt", weights_only=True)
    assert again.keys() == {name for name in w if not name.endswith((".attn.bias", ".attn.masked_bias"))}
    for name, tensor in again.items():
        torch.testing.assert_close(tensor, w[name], rtol=0, atol=1e-6)


def test_an_imported_m2_is_exported_as_the_files_it_was(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_of(place, "m2", write_m2(place / "files"), "decoder.num_heads=1")
    assert main(["export", str(run), "--m2", "again/m2.pth"]) == 0
    printed = capsys.readouterr().out
    assert "again/m2.pth" in printed and "again/vocab.pkl" in printed
    itos = ["<unk>", "<pad>", "<bos>", "<eos>", *WORDS]
    w, again = random_weights(m2_shapes(len(itos))), torch.load(place / "again" / "m2.pth")["state_dict"]
    for name, tensor in w.items():
        if "running" not in name:
            expected = tensor.clone()
            if name == "decoder.pos_emb.weight":
                expected[0] = 0  # padding's
            torch.testing.assert_close(again[name], expected, rtol=0, atol=1e-6)
    files = [place / "again" / "m2.pth", place / "again" / "vocab.pkl"]
    given = [*DATA, *overrides_of("m2"), "decoder.num_heads=1"]
    other = import_release("m2", files, given, folder=place / "other", command="test")[0]
    torch.testing.assert_close(log_probabilities(other, 4), log_probabilities(run, 4))
    capsys.readouterr()
    for words, sentence in (
        (["--m2", "again/m2.pth"], "again/m2.pth exists already"),
        (
            ["--clipcap", "x.pt"],
            "another net than the release's: image_tokens=all and not mlp, mapper or split",
        ),
    ):
        assert main(["export", str(run), *words]) == 1
        assert sentence in capsys.readouterr().err
        assert not (place / "x.pt").exists()
