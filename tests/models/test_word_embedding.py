"""decoder.embedding: where the words of each vocabulary start in a language model's own table."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.tiny_config import TINY, try_out
from helpers.tiny_tokenizers import CAPTIONS, tiny_bert, tiny_gpt2
from omegaconf import OmegaConf
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    PreTrainedTokenizerFast,
)

from easycap.config.compose import compose
from easycap.config.schema import check
from easycap.models.build import build_captioner, with_architecture, without_downloads
from easycap.models.captioner import Captioner
from easycap.models.decoders.token_embedding import means_of_subwords, start_words
from easycap.sweeps.plan import make_plan, read_request
from easycap.tasks.create import load_task
from easycap.tasks.preflight import about_initial_weights
from easycap.train import create_task, train
from easycap.training.validation import Validator
from easycap.types import Vocabulary
from easycap.vocab.bert import BertVocabulary
from easycap.vocab.gpt2 import GPT2Vocabulary
from easycap.vocab.pretrained import PretrainedVocabulary
from easycap.vocab.tokenizer_files import read_tokenizer
from easycap.vocab.word import WordVocabulary


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny GPT-2 and its tokenizer, as downloaded."""
    folder = shutil.copytree(tiny_gpt2(), tmp_path_factory.mktemp("lm") / "gpt2")
    size = len(json.loads((folder / "vocab.json").read_text()))
    torch.manual_seed(3)
    config = GPT2Config(
        vocab_size=size,
        n_embd=16,
        n_layer=1,
        n_head=2,
        n_positions=40,
        bos_token_id=size - 1,
        eos_token_id=size - 1,
    )
    GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def theirs(folder: Path) -> torch.Tensor:
    return GPT2LMHeadModel.from_pretrained(folder).get_input_embeddings().weight.detach()


def settings(folder: Path, *overrides: str) -> dict[str, Any]:
    own = [f"decoder.pretrained={folder}", "decoder.max_positions=40", "decoder.embedding=pretrained"]
    return check(compose([*TINY, *own, *overrides])[0])


def captioner(folder: Path, words: Vocabulary, *overrides: str) -> Captioner:
    return build_captioner(settings(folder, *overrides), words)


def table_of(made: Captioner) -> torch.Tensor:
    lm = made.decoder.lm
    assert lm.get_output_embeddings().weight is lm.get_input_embeddings().weight
    return lm.get_input_embeddings().weight.detach()


def test_gpt2s_vocabulary_keeps_gpt2s_table(folder: Path, theirs: torch.Tensor) -> None:
    words = GPT2Vocabulary(path=str(folder), segmenter="spaces", end=None)
    table = table_of(captioner(folder, words))
    assert torch.equal(table[: len(theirs)], theirs)
    assert torch.equal(table[words.bos_id], theirs[words.eos_id])  # GPT-2 starts a text with its end of text
    torch.testing.assert_close(table[words.pad_id], theirs.mean(0))


def test_a_word_starts_at_the_mean_of_its_pieces_in_running_text(folder: Path, theirs: torch.Tensor) -> None:
    words = WordVocabulary(size=99, min_count=1, captions=CAPTIONS, segmenter="spaces")
    table = table_of(captioner(folder, words))
    tokenizer = read_tokenizer(str(folder))
    assert table.shape == (len(words), 16)
    for word in ("dog", "running", "t-shirt"):
        pieces = tokenizer.encode(f" {word}").ids
        assert pieces != tokenizer.encode(word).ids
        torch.testing.assert_close(table[words.encode(word)[0]], theirs[pieces].mean(0))
    assert torch.equal(table[words.eos_id], theirs[-1]) and torch.equal(table[words.bos_id], theirs[-1])
    torch.testing.assert_close(table[words.unk_id], theirs.mean(0))


def test_inner_pieces_of_bert_start_without_a_space(folder: Path, theirs: torch.Tensor) -> None:
    words = BertVocabulary(path=str(tiny_bert()), segmenter="spaces")
    table = table_of(captioner(folder, words, "vocab=bert", f"vocab.path={tiny_bert()}"))
    tokenizer = read_tokenizer(str(folder))
    whole, inner = words.tokens.index("on"), words.tokens.index("##s")
    torch.testing.assert_close(table[whole], theirs[tokenizer.encode(" on").ids].mean(0))
    torch.testing.assert_close(table[inner], theirs[tokenizer.encode("s").ids].mean(0))


def test_words_start_at_the_models_own_unless_told_otherwise(folder: Path, theirs: torch.Tensor) -> None:
    words = GPT2Vocabulary(path=str(folder), segmenter="spaces", end=None)
    table = table_of(captioner(folder, words, "decoder.embedding=auto"))
    assert torch.equal(table[: len(theirs)], theirs)
    words = PretrainedVocabulary(path=str(tokenizer_of(folder)), segmenter="spaces")
    table = table_of(captioner(tokenizer_of(folder), words, "decoder.embedding=auto", "vocab=pretrained"))
    assert torch.equal(table[: len(theirs)], theirs) and len(table) == len(theirs) + 2


def tokenizer_of(folder: Path) -> Path:
    """The folder of the model, with its tokenizer as transformers saves one."""
    if not (folder / "tokenizer.json").is_file():
        tokenizer = read_tokenizer(str(folder))
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>").save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["decoder.embedding=random"], "decoder.embedding=random discards the word embeddings of"),
        (["decoder.embedding=auto"], "the words of vocab=word are not those of"),
    ],
)
def test_what_becomes_of_the_models_words_is_reported(
    folder: Path, overrides: list[str], sentence: str
) -> None:
    words = WordVocabulary(size=99, min_count=1, captions=CAPTIONS, segmenter="spaces")
    config = settings(folder, *overrides)
    found = [
        text for _, text in about_initial_weights(config, captioner(folder, words, *overrides), resumed=False)
    ]
    assert sum(sentence in text for text in found) == 1
    if "random" in sentence:
        assert f"{len(words) * 16 / 1e6:.1f} million weights" in " ".join(found)
    assert not any(
        str(folder) in text
        for _, text in about_initial_weights(config, captioner(folder, words, *overrides), resumed=True)
    )


def test_random_takes_nothing_over(folder: Path, theirs: torch.Tensor) -> None:
    words = GPT2Vocabulary(path=str(folder), segmenter="spaces", end=None)
    table = table_of(captioner(folder, words, "decoder.embedding=random"))
    assert not torch.isclose(table[: len(theirs)], theirs).all(1).any()


@pytest.mark.parametrize("vocab", ["gpt2", "word"])
def test_the_sweep_of_embeddings_trains_what_its_runs_say(
    folder: Path, theirs: torch.Tensor, vocab: str
) -> None:
    chosen = ["vocab=gpt2", f"vocab.path={folder}"] if vocab == "gpt2" else ["vocab=word"]
    sizes = [line for line in TINY if not line.startswith("decoder.")]
    words = ["sweep=embedding", f"decoder.pretrained={folder}", "decoder.max_positions=40", *chosen, *sizes]
    plan = make_plan(read_request(words))
    words = GPT2Vocabulary(path=str(folder), segmenter="spaces", end=None) if vocab == "gpt2" else WordVocabulary(
        size=99, min_count=1, captions=CAPTIONS, segmenter="spaces"
    )  # fmt: skip
    dog = [words.encode("dog")[0], theirs[read_tokenizer(str(folder)).encode(" dog").ids].mean(0)]
    if vocab == "gpt2":
        dog[1] = theirs[dog[0]]
    starts = {}
    for planned in plan.runs:
        settings = check(compose(planned.overrides)[0])
        assert settings["decoder"]["name"] == "causal_lm" and settings["vocab"]["name"] == vocab
        table = table_of(build_captioner(settings, words))
        starts[settings["decoder"]["embedding"]] = torch.allclose(table[dog[0]], dog[1], atol=1e-6)
    assert starts == {"pretrained": True, "random": False}


def test_an_output_layer_of_its_own_starts_at_its_own_rows() -> None:
    torch.manual_seed(0)
    config = GPTNeoXConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    lm = GPTNeoXForCausalLM(config)
    before = [
        layer.weight.detach().clone() for layer in (lm.get_input_embeddings(), lm.get_output_embeddings())
    ]
    # its own ids go before those of `special`
    start_words(lm, 4, [[4, 5], [], [], [6]], {1: None, 2: 7, 3: 8}, pad_id=0)
    for table, layer in zip(before, (lm.get_input_embeddings(), lm.get_output_embeddings()), strict=True):
        expected = torch.stack([table[[4, 5]].mean(0), table.mean(0), table[7], table[6]])
        torch.testing.assert_close(layer.weight.detach(), expected)


def test_means() -> None:
    table = torch.tensor([[0.0, 2.0], [4.0, 4.0], [2.0, 0.0]])
    means = means_of_subwords(table, [[], [1], [0, 1], [2, 2, 1, 1], []])
    assert means.tolist() == [[2, 2], [4, 4], [2, 3], [3, 2], [2, 2]]


def test_a_checkpoint_needs_neither_the_weights_nor_the_tokenizer(folder: Path, tmp_path: Path) -> None:
    from easycap.config.schema import to_plain
    from easycap.training.checkpoint_files import save_checkpoint

    copy = shutil.copytree(folder, tmp_path / "gone")
    config = settings(copy, "vocab=gpt2", f"vocab.path={copy}")
    task = create_task(with_architecture(config))
    save_checkpoint(
        tmp_path / "best",
        task.model,
        task.vocabulary,
        to_plain(task.config),
        progress={},
    )
    shutil.rmtree(copy)
    again = load_task(tmp_path / "best", device="cpu")
    assert torch.equal(table_of(again.model), table_of(task.model))
    assert again.vocabulary.encode(CAPTIONS[0]) == task.vocabulary.encode(CAPTIONS[0])


@pytest.mark.parametrize("embedding", ["pretrained", "random", "auto"])
@pytest.mark.parametrize("tune", ["lora", "none", "all"])
def test_a_resumed_run_trains_what_it_trained_before(folder: Path, tune: str, embedding: str) -> None:
    words = GPT2Vocabulary(path=str(folder), segmenter="spaces", end=None)
    config = settings(folder, f"decoder.tune={tune}", f"decoder.embedding={embedding}")
    config = with_architecture(config)
    made, again = (build_captioner(one, words) for one in (config, without_downloads(config)))
    trained = [{name for name, w in one.named_parameters() if w.requires_grad} for one in (made, again)]
    assert trained[0] == trained[1]
    assert any("wte" in name for name in trained[0]) == (tune == "all" or embedding == "random")


def test_a_killed_run_goes_on_without_what_it_was_built_from(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def killed(*_: Any) -> None:
        raise Killed

    copy = shutil.copytree(folder, tmp_path / "gone")
    config = settings(copy, "vocab=gpt2", f"vocab.path={copy}", "trainer.checkpoint_every_steps=1")
    with monkeypatch.context() as patch:
        patch.setattr(Validator, "__call__", killed)
        with pytest.raises(Killed):
            train(config, tmp_path / "run", command="")
    shutil.rmtree(copy)
    stored = check(OmegaConf.load(tmp_path / "run" / "config.yaml"))
    train(stored | {"resume": str(tmp_path / "run")}, tmp_path / "run", command="")
    assert json.loads((tmp_path / "run" / "status.json").read_text())["status"] == "completed"


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["decoder.embedding=pretrained"], "decoder.embedding=pretrained needs a language model's table"),
        (["decoder.embedding=learnt"], "decoder.embedding=learnt must be auto, pretrained or random"),
    ],
)
def test_settings_that_cannot_be_end_before_any_work(overrides: list[str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        try_out(check(compose([*TINY, *overrides])[0]))


def test_a_model_without_its_tokenizer_is_named(folder: Path, tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        shutil.copy(folder / name, tmp_path)
    words = WordVocabulary(size=9, min_count=1, captions=CAPTIONS, segmenter="spaces")
    with pytest.raises(ValueError, match="tokenizer.json.*into that folder, or set decoder.embedding=random"):
        captioner(tmp_path, words)
