"""A prompt around retrieved captions, which the language model continues with the caption of the image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.condition_data import condition_data
from helpers.tiny_tokenizers import tiny_language_model_tokenizer
from helpers.tiny_vocabularies import tiny_vocabulary
from helpers.whole_runs import read, run, settings

from easycap.commands.caption import main as caption
from easycap.conditioning.draft_sources import RetrievedDraft
from easycap.data.loader import Collate
from easycap.errors import UserError
from easycap.tasks.training import training_loader
from easycap.train import create_task
from easycap.types import Example
from easycap.vocab.pretrained import PretrainedVocabulary

SHARES = dict.fromkeys(("another", "nothing", "as_tested", "drop", "replace", "swap"), 0.0)
TEMPLATE = "Dogs show\n\n{captions}\n\nThis shows "
RETRIEVAL = [
    "draft=retrieval",
    "draft.training={another: 0, nothing: 0, as_tested: 1, drop: 0, replace: 0, swap: 0}",
]
LANGUAGE_MODEL = [
    "vocab=pretrained",
    "decoder=causal_lm",
    "decoder.architecture={model_type: llama, hidden_size: 16, intermediate_size: 32, num_hidden_layers: 1, "
    "num_attention_heads: 2, num_key_value_heads: 1, max_position_embeddings: 300}",
    "decoder.width=null",
    "decoder.num_layers=null",
    "decoder.num_heads=null",
    "decoder.bos=false",
]


def draft(max_length: int = 99, prompt: str | None = TEMPLATE, **changed: Any) -> RetrievedDraft:
    given = {"run": None, "encoder": "", "count": 2, "separator": "\n\n"} | changed
    return RetrievedDraft(condition_data({}), **given, prompt=prompt, max_length=max_length, training=SHARES)


@pytest.fixture(scope="module")
def words() -> PretrainedVocabulary:
    return PretrainedVocabulary(path=str(tiny_language_model_tokenizer("byte_level")), segmenter="spaces")


def text_of(ids: list[int], words: PretrainedVocabulary) -> str:
    return words.tokenizer.decode(ids, skip_special_tokens=False)


def test_the_prompt_is_read_as_it_is_written(words: PretrainedVocabulary) -> None:
    ids = draft().encode("a dog runs\n\na cat sits", words)
    assert text_of(ids, words) == "Dogs show\n\na dog runs\n\na cat sits\n\nThis shows "
    assert text_of([*ids, *words.encode("a cat")], words).endswith("This shows a cat")
    assert draft().encode("", words) == []


def test_without_a_prompt_a_draft_is_read_as_any_other(words: PretrainedVocabulary) -> None:
    plain = draft(5, prompt=None)
    assert plain.encode(" a dog  runs on the grass ", words) == words.encode("a dog runs on the grass")[:5]
    assert plain.room(words) == 5


def test_of_a_long_draft_the_end_is_left_out_and_not_that_of_the_prompt(words: PretrainedVocabulary) -> None:
    whole = draft().encode("a dog runs on the grass", words)
    ids = draft(len(whole) - 3).encode("a dog runs on the grass", words)
    assert len(ids) == len(whole) - 3
    text = text_of(ids, words)
    assert (
        text.startswith("Dogs show\n\na dog runs")
        and text.endswith("\n\nThis shows ")
        and "grass" not in text
    )


def test_the_loader_gives_the_prompt_and_refuses_one_without_room(words: PretrainedVocabulary) -> None:
    def collate(condition: RetrievedDraft) -> Collate:
        return Collate(words, {"draft": condition}, max_length=9, captions_per_image=1, seed=0)

    example, condition = Example("1", 1, ("a dog",)), draft()
    condition.found[1] = "a cat"
    batch = collate(condition)([(example, torch.zeros(3, 4, 4, dtype=torch.uint8))])
    assert batch.inputs.context["draft"].tolist() == [condition.encode("a cat", words)]
    with pytest.raises(
        UserError, match=r"draft.max_length=9 leaves no room for captions beside draft.prompt of"
    ):
        collate(draft(9))


@pytest.mark.parametrize("name", ["gpt2", "pretrained"])
def test_prompts_differ_from_captions_in_white_space_alone(name: str) -> None:
    vocabulary = tiny_vocabulary(name)
    for text in ("a dog runs on the grass", "The cat's hat"):
        assert vocabulary.encode_prompt(text) == vocabulary.encode(f" {text}  ")
        assert len(vocabulary.encode_prompt(f"{text}\n ")) > len(vocabulary.encode(f"{text}\n "))


@pytest.mark.parametrize("vocabulary", ["gpt2", "pretrained", "bert"])
def test_every_subword_vocabulary_reads_a_prompt(vocabulary: str) -> None:
    ids = draft().encode("a dog", tiny_vocabulary(vocabulary))
    assert "dog" in tiny_vocabulary(vocabulary).decode(ids) and len(ids) > 5


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"prompt": "This shows"}, r"draft.prompt='This shows' must have \{captions\} once"),
        ({"prompt": "{captions} {captions}"}, r"must have \{captions\} once"),
        ({"count": 0}, "draft.count=0 must be at least 1"),
    ],
)
def test_wrong_settings_are_named(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        draft(**changed)


def test_words_of_captions_alone_are_no_prompt() -> None:
    config = {"vocab": {"name": "word"}, "resume": None, "trainer": {"captions_per_image": 1}}
    config |= {"objective": {"name": "xe"}}
    with pytest.raises(
        UserError, match="draft.prompt is text for a language model, and vocab=word has no words"
    ):
        draft().validate(config)


@pytest.fixture(scope="module")
def encoder_run(tmp_path_factory: pytest.TempPathFactory, scenes_cache: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EASYCAP_CACHE", str(scenes_cache))
        return run(tmp_path_factory.mktemp("run") / "run", "trainer.max_steps=1")


def prompted(encoder_run: Path) -> list[str]:
    prompt = '"{}"'.format("Dogs show {captions} This shows ")
    return [
        *RETRIEVAL,
        f"draft.run={encoder_run}",
        "draft.count=3",
        f"draft.prompt={prompt}",
        "draft.max_length=250",
        *LANGUAGE_MODEL,
        f"vocab.path={tiny_language_model_tokenizer('byte_level')}",
        "trainer.captions_per_image=5",
        "trainer.max_steps=2",
    ]


def test_the_language_model_reads_the_image_then_the_prompt_then_the_caption(encoder_run: Path) -> None:
    task = create_task(settings(*prompted(encoder_run)))
    batch = next(training_loader(task).epoch(0))
    ids, words, model = batch.inputs.context["draft"], task.vocabulary, task.model.eval()
    text = words.decode(ids[0].tolist())
    shown = task.conditions["draft"].test_text(task.examples("train")[0])
    firsts = {example.references[0] for example in task.examples("train")}
    assert text.startswith("Dogs show ") and text.endswith("This shows")
    assert sum(shown.count(first) for first in firsts) >= 3
    memory = model.build_memory(batch.inputs)
    images = memory.tokens.shape[1] - ids.shape[1]
    table = model.decoder.lm.get_input_embeddings()
    assert torch.equal(memory.tokens[:, images:], table(ids))
    # The logits are those of the plain sequence: image tokens, prompt, caption.
    row = int((batch.rows == 0).nonzero()[0])
    caption_ids = batch.input_ids[row][batch.input_ids[row] != words.pad_id][1:]
    real = ids[0] != words.pad_id
    sequence = torch.cat([memory.tokens[0, :images], table(ids[0][real]), table(caption_ids)])
    expected = model.decoder.lm(inputs_embeds=sequence.unsqueeze(0)).logits[0, -len(caption_ids) - 1 :]
    found = model(batch.inputs, batch.input_ids, batch.rows).logits[row, : len(caption_ids) + 1]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_a_run_with_a_prompt_captions_photos(
    encoder_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    path = run(tmp_path / "run", *prompted(encoder_run))
    assert "test" in read(path, "result.json")["scores"]
    photo = path / read(path, "samples/test.json")["random"][0]["image"]
    capsys.readouterr()
    assert caption([str(path), str(photo), "--draft", "a " * 300, "--device", "cpu"]) == 0
    assert "of 300 tokens (draft.max_length=250)" in capsys.readouterr().err
