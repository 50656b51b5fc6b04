"""captioner.word_vectors: the word embeddings of a decoder trained from scratch start from another model's table."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.tiny_config import TINY, try_out
from helpers.tiny_decoders import SUPPLIED
from helpers.tiny_decoders import TINY as DECODERS
from helpers.tiny_tokenizers import CAPTIONS, tiny_bert, tiny_gpt2, tiny_language_model_tokenizer
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import BertConfig, BertForMaskedLM, GPT2Config, GPT2LMHeadModel

from easycap.config.compose import compose
from easycap.config.schema import check, config_hash, to_plain
from easycap.config.validate import validate
from easycap.errors import UserError
from easycap.models.build import build_captioner, with_architecture, without_downloads
from easycap.models.word_vectors import read_word_vectors, start_from_word_vectors
from easycap.registry import construct, lookup, names
from easycap.report.recipe import recipe
from easycap.tasks.create import load_task
from easycap.tasks.dry_run import dry_run
from easycap.train import create_task, train
from easycap.training.checkpoint_files import save_checkpoint
from easycap.types import Vocabulary
from easycap.vocab.bert import BertVocabulary
from easycap.vocab.gpt2 import GPT2Vocabulary
from easycap.vocab.pretrained import PretrainedVocabulary
from easycap.vocab.tokenizer_files import read_tokenizer
from easycap.vocab.word import WordVocabulary

WIDTH = 12  # of the tables


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny GPT-2 and its tokenizer, as downloaded."""
    folder = shutil.copytree(tiny_gpt2(), tmp_path_factory.mktemp("lm") / "gpt2")
    size = len(json.loads((folder / "vocab.json").read_text()))
    torch.manual_seed(3)
    GPT2LMHeadModel(GPT2Config(vocab_size=size, n_embd=WIDTH, n_layer=1, n_head=2)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT with a head, whose tensors have the prefix bert., and its tokenizer as transformers saves it."""
    source = tiny_language_model_tokenizer("wordpiece")
    folder = shutil.copytree(source, tmp_path_factory.mktemp("lm") / "bert")
    torch.manual_seed(4)
    size = len(read_tokenizer(str(folder)).get_vocab())
    config = BertConfig(
        vocab_size=size, hidden_size=WIDTH, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
    )
    BertForMaskedLM(config).save_pretrained(folder)
    return folder


@pytest.fixture
def words() -> WordVocabulary:
    return WordVocabulary(size=99, min_count=1, captions=CAPTIONS, segmenter="spaces")


def settings(*overrides: str) -> dict[str, Any]:
    return check(compose([*TINY, *overrides])[0])


def started(vocabulary: Vocabulary, source: Path, width: int) -> torch.Tensor:
    torch.manual_seed(0)
    embedding = nn.Embedding(len(vocabulary), width)
    start_from_word_vectors(embedding, vocabulary, str(source), seed=1)
    return embedding.weight.detach()


def cosines(rows: torch.Tensor) -> torch.Tensor:
    rows = nn.functional.normalize(rows)
    return rows @ rows.T


def theirs(source: Path, ids: list[list[int]]) -> torch.Tensor:
    """The means of the table's rows, centred over the given words."""
    table = read_word_vectors(str(source)).table
    rows = torch.stack([table[one].mean(0) for one in ids])
    return rows - rows.mean(0)


@pytest.mark.parametrize("width", [WIDTH, 3 * WIDTH])
def test_angles_between_words_are_those_of_the_means_of_their_subwords(
    gpt2: Path, words: WordVocabulary, width: int
) -> None:
    tokenizer = read_tokenizer(str(gpt2))
    ids = [tokenizer.encode(f" {word}").ids for word in words.words[4:]]
    assert max(map(len, ids)) > 1 and min(map(len, ids)) == 1
    torch.testing.assert_close(
        cosines(started(words, gpt2, width)[4:]), cosines(theirs(gpt2, ids)), atol=1e-5, rtol=0
    )


def test_a_wider_table_is_reduced_to_its_principal_components(gpt2: Path, words: WordVocabulary) -> None:
    tokenizer = read_tokenizer(str(gpt2))
    rows = theirs(gpt2, [tokenizer.encode(f" {word}").ids for word in words.words[4:]])
    left, values, _ = torch.linalg.svd(rows, full_matrices=False)
    expected = cosines((left * values)[:, :5])
    torch.testing.assert_close(cosines(started(words, gpt2, 5)[4:]), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("vocab", ["gpt2", "bert", "pretrained"])
def test_a_vocabulary_of_the_same_tokens_starts_at_their_own_rows(gpt2: Path, bert: Path, vocab: str) -> None:
    words: Any = {
        "gpt2": lambda: GPT2Vocabulary(path=str(gpt2), segmenter="spaces", end=None),
        "bert": lambda: BertVocabulary(path=str(tiny_bert()), segmenter="spaces"),
        "pretrained": lambda: PretrainedVocabulary(path=str(bert), segmenter="spaces"),
    }[vocab]()
    source = gpt2 if vocab == "gpt2" else bert
    special = {words.pad_id, words.bos_id, words.eos_id, words.unk_id}
    kept = [index for index in range(len(words)) if index not in special]
    assert len(kept) > 50
    found = cosines(started(words, source, WIDTH)[kept])
    torch.testing.assert_close(found, cosines(theirs(source, [[index] for index in kept])), atol=1e-5, rtol=0)


@pytest.mark.parametrize("vocab", ["word", "bert", "gpt2"])
@pytest.mark.parametrize("source", ["gpt2", "bert"])
def test_each_vocabulary_starts_from_each_kind_of_table(
    vocab: str, source: str, words: WordVocabulary, request: pytest.FixtureRequest
) -> None:
    made: dict[str, Any] = {
        "word": lambda: words,
        "bert": lambda: BertVocabulary(path=str(tiny_bert()), segmenter="spaces"),
        "gpt2": lambda: GPT2Vocabulary(path=str(tiny_gpt2()), segmenter="spaces", end=None),
    }
    vocabulary = made[vocab]()
    torch.manual_seed(0)
    before = nn.Embedding(len(vocabulary), 8).weight.detach()
    after = started(vocabulary, request.getfixturevalue(source), 8)
    special = [i for i in (vocabulary.pad_id, vocabulary.bos_id, vocabulary.eos_id, vocabulary.unk_id) if i]
    assert torch.equal(after[special], before[special])
    changed = (after != before).any(1)
    # BERT has no token for most of GPT-2's bytes
    assert changed.sum() >= (20 if (vocab, source) == ("gpt2", "bert") else len(vocabulary) - 4)
    length = before[changed].norm(dim=1).square().mean().sqrt()
    torch.testing.assert_close(after[changed].norm(dim=1), length.expand(int(changed.sum())))


class Words:
    """The vocabulary that the toy decoders are made for, each word one of CAPTIONS' letters."""

    pad_id, bos_id, eos_id, unk_id = range(4)

    def __len__(self) -> int:
        return SUPPLIED["vocab_size"]

    def subword_ids(self, tokenizer: Any) -> list[list[int]]:
        return [[] for _ in range(4)] + [tokenizer.encode(chr(97 + i)).ids for i in range(len(self) - 4)]


@pytest.mark.parametrize("name", names("decoder"))
def test_every_decoder_reads_words_by_what_they_start_from(gpt2: Path, name: str) -> None:
    torch.manual_seed(0)
    decoder = construct(lookup("decoder", name), DECODERS[name], SUPPLIED)
    before = {key: weight.detach().clone() for key, weight in decoder.named_parameters()}
    start_from_word_vectors(decoder.token_embedding, Words(), str(gpt2), seed=1)  # type: ignore[arg-type]
    changed = [key for key, weight in decoder.named_parameters() if not torch.equal(weight, before[key])]
    assert (
        len(changed) == 1 and dict(decoder.named_parameters())[changed[0]] is decoder.token_embedding.weight
    )
    assert not torch.equal(decoder.token_embedding.weight[4:], before[changed[0]][4:])


@pytest.mark.parametrize("decoder", ["gpt2_tiny", "transformer", "lstm"])
def test_nothing_else_of_the_model_starts_otherwise(gpt2: Path, words: WordVocabulary, decoder: str) -> None:
    sizes = ["decoder.width=16", "decoder.num_heads=2", "decoder.num_layers=1"] if decoder != "lstm" else []
    own = [line for line in TINY if not line.startswith("decoder.")]
    models = []
    for source in ("null", gpt2):
        overrides = [*own, f"decoder={decoder}", *sizes, f"captioner.word_vectors={source}"]
        torch.manual_seed(1)
        models.append(build_captioner(check(compose(overrides)[0]), words))
    states = [model.state_dict() for model in models]
    same = {id(models[1].decoder.token_embedding.weight)}
    table = [key for key, weight in models[1].named_parameters(remove_duplicate=False) if id(weight) in same]
    for key in states[0]:
        assert torch.equal(states[0][key], states[1][key]) == (key not in table), key


def test_a_run_trains_and_its_checkpoint_needs_the_source_no_more(
    gpt2: Path, tmp_path: Path, words: WordVocabulary
) -> None:
    source = shutil.copytree(gpt2, tmp_path / "gone")
    config = settings(f"captioner.word_vectors={source}", "trainer.max_steps=1")
    train(config, tmp_path / "run", command="")
    stored = OmegaConf.load(tmp_path / "run" / "config.yaml")
    assert stored.captioner.word_vectors == str(source)
    assert ("word vectors", "gone") in recipe(OmegaConf.to_container(stored))
    shutil.rmtree(source)
    task = load_task(tmp_path / "run" / "checkpoints" / "best", device="cpu")
    assert torch.isfinite(task.model.decoder.token_embedding.weight).all()
    again = settings(f"init_from={tmp_path / 'run'}", "trainer.max_steps=1")
    assert again["captioner"]["word_vectors"] == str(source)
    train(again, tmp_path / "second", command="")
    with pytest.raises(
        UserError, match="captioner.word_vectors=other is where .* brings its own: leave it out"
    ):
        settings(f"init_from={tmp_path / 'run'}", "captioner.word_vectors=other")


def test_a_checkpoint_has_the_table_it_started_from(gpt2: Path, tmp_path: Path) -> None:
    task = create_task(with_architecture(settings(f"captioner.word_vectors={gpt2}")))
    save_checkpoint(tmp_path / "best", task.model, task.vocabulary, to_plain(task.config), progress={})
    again = load_task(tmp_path / "best", device="cpu")
    assert torch.equal(again.model.decoder.token_embedding.weight, task.model.decoder.token_embedding.weight)
    torch.manual_seed(1)
    random = build_captioner(without_downloads(task.config), task.vocabulary)
    assert not torch.equal(random.decoder.token_embedding.weight, task.model.decoder.token_embedding.weight)


def test_runs_with_other_word_vectors_are_other_runs(gpt2: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(gpt2, tmp_path / "moved" / gpt2.name)
    hashes = [config_hash(settings(f"captioner.word_vectors={one}")) for one in ("null", "a/b", gpt2, moved)]
    assert len(set(hashes[:3])) == 3 and hashes[2] == hashes[3]


def test_weights_in_several_files_are_read(gpt2: Path, words: WordVocabulary, tmp_path: Path) -> None:
    folder = shutil.copytree(gpt2, tmp_path / "sharded")
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    (table,) = [key for key in tensors if key.endswith("wte.weight")]
    files = {key: f"model-0000{1 + (key == table)}-of-00002.safetensors" for key in tensors}
    for file in set(files.values()):
        save_file({key: tensors[key] for key in tensors if files[key] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
    (folder / files[next(key for key in tensors if key != table)]).write_bytes(b"never read")
    assert torch.equal(started(words, folder, 8), started(words, gpt2, 8))


def without(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).unlink()


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda folder: without(folder, "config.json"), "has no readable word embeddings"),
        (lambda folder: without(folder, "model.safetensors"), "holds no model.safetensors"),
        (lambda folder: without(folder, "vocab.json", "merges.txt"), "no readable .*tokenizer files"),
        (
            lambda folder: (folder / "model.safetensors").write_bytes(b"x" * 64),
            "has no readable word embeddings",
        ),
        (
            lambda folder: save_file({"x": torch.zeros(2)}, folder / "model.safetensors"),
            r"its weights hold no wte\.weight",
        ),
    ],
)
def test_a_folder_without_a_table_is_refused_before_any_work(
    gpt2: Path, tmp_path: Path, damage: Any, sentence: str
) -> None:
    folder = shutil.copytree(gpt2, tmp_path / "lm")
    damage(folder)
    with pytest.raises(UserError, match=sentence) as found:
        try_out(settings(f"captioner.word_vectors={folder}"))
    assert str(found.value).startswith(f"captioner.word_vectors='{folder}' ") and "\n" not in str(found.value)


def test_a_table_of_another_model_is_refused(gpt2: Path, words: WordVocabulary, tmp_path: Path) -> None:
    folder = shutil.copytree(gpt2, tmp_path / "lm")
    save_file({"wte.weight": torch.randn(40, 8)}, folder / "model.safetensors")
    with pytest.raises(UserError, match="for 40 tokens, but its tokenizer has the id .* not of one model"):
        started(words, folder, 8)


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (
            ["decoder=causal_lm", "decoder.pretrained=gpt2"],
            "decoder.pretrained has word embeddings of its own",
        ),
        (["task=tags", "tagger=cnn"], "captioner.word_vectors is for captioners"),
    ],
)
def test_settings_that_do_not_go_together(overrides: list[str], sentence: str) -> None:
    own = [line for line in TINY if not line.startswith("decoder.")]
    with pytest.raises(UserError, match=sentence):
        validate(compose([*own, "captioner.word_vectors=a/b", *overrides])[0])


def test_a_captioner_of_transformers_has_no_such_setting() -> None:
    with pytest.raises(
        UserError, match=r"captioner\.word_vectors does not exist for captioner 'huggingface'"
    ):
        settings("captioner=huggingface", "captioner.model=a/b", "+captioner.word_vectors=a/b")


def test_an_unreadable_source_is_found_before_any_work_though_the_encoder_comes_from_a_tagger(
    tmp_path: Path,
) -> None:
    tagger = settings("task=tags", "tagger=cnn", "tag_vocab.min_count=1", "trainer.max_steps=1")
    train(tagger, tmp_path / "tagger", command="")
    config = settings(f"init_from={tmp_path / 'tagger'}", f"captioner.word_vectors={tmp_path / 'none'}")
    with pytest.raises(UserError, match="captioner.word_vectors='.*none' has no readable word embeddings"):
        dry_run(config)
