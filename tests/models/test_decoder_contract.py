"""The decoder contract, over every registered decoder: a new one needs a row in helpers/tiny_decoders.py, nothing else.

A prefix decoder reads memory position by position as if it were words; an attending one looks at all of it each time.
"""

from __future__ import annotations

import pytest
import torch
from helpers.devices import DEVICES
from helpers.gpt2_of_transformers import gpt2_of_transformers
from helpers.tiny_decoders import PREFIX, SUPPLIED, TINY, VARIANTS

from easycap.registry import construct, lookup, names
from easycap.types import Decoder, Memory

NUM_IMAGES, NUM_TAGS, NUM_POSITIONS = 3, 2, 7


@pytest.fixture(autouse=True, scope="module", params=DEVICES)
def one_core_in_double_precision(request: pytest.FixtureRequest):
    """Weights as large as the decoder fixture's make rounding in single precision as large as the tolerance."""
    if request.param != "cpu":
        torch.set_default_device(request.param)
    threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_device(None)
    torch.set_num_threads(threads)
    torch.set_default_dtype(dtype)


@pytest.fixture(params=[*names("decoder"), *VARIANTS])
def decoder(request: pytest.FixtureRequest) -> Decoder:
    name, changes = VARIANTS.get(request.param, (request.param, {}))
    if name not in TINY:
        pytest.fail(f"decoder {name!r} has no row in TINY: add its constructor arguments at toy size")
    constructor = lookup("decoder", name)
    torch.manual_seed(0)
    decoder = construct(constructor, TINY[name] | changes, SUPPLIED)
    with torch.no_grad():  # weights as they are drawn make logits so flat that a broken mask would not show
        for parameter in decoder.parameters():
            if parameter.ndim > 1:
                parameter.mul_(0.5 / parameter.std())
    return decoder.eval()


@pytest.fixture
def memory(decoder: Decoder) -> Memory:
    """Three images: all positions valid; a tag and an image position masked; padded at the end."""
    tokens = randn(NUM_IMAGES, NUM_POSITIONS, decoder.memory_dim, seed=1)
    mask = torch.ones(NUM_IMAGES, NUM_POSITIONS, dtype=torch.bool)
    mask[1, [0, 4]] = False
    mask[2, 5:] = False
    return Memory(tokens, mask, {"tags": slice(0, NUM_TAGS), "image": slice(NUM_TAGS, NUM_POSITIONS)})


def randn(*shape: int, seed: int) -> torch.Tensor:
    """The same on every device."""
    drawn = torch.randn(*shape, generator=torch.Generator("cpu").manual_seed(seed), device="cpu")
    return drawn.to(torch.get_default_device())


def words_of(num_rows: int, decoder: Decoder) -> torch.Tensor:
    shape, generator = (num_rows, decoder.max_length), torch.Generator("cpu").manual_seed(2)
    words = torch.randint(4, SUPPLIED["vocab_size"], shape, generator=generator, device="cpu")
    words[:, 0] = SUPPLIED["bos_id"]
    return words.to(torch.get_default_device())


def stepped(decoder: Decoder, words: torch.Tensor, state) -> torch.Tensor:
    logits = []
    for column in words.T:
        step, state = decoder.step(column, state)
        logits.append(step)
    return torch.stack(logits, 1)


def close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


def test_logits_are_those_of_the_words(decoder, memory):
    output = decoder(words_of(NUM_IMAGES, decoder), decoder.start(memory))
    assert output.logits.shape == (NUM_IMAGES, decoder.max_length, SUPPLIED["vocab_size"])
    if output.attention is not None:
        assert output.attention.shape == (NUM_IMAGES, decoder.max_length, NUM_POSITIONS)
        assert not output.attention.masked_select(~memory.mask.unsqueeze(1)).any()
    assert all(loss.ndim == 0 for loss in output.losses.values())


def test_teacher_forcing_equals_stepping(decoder, memory):
    words = words_of(NUM_IMAGES, decoder)
    forced = decoder(words, decoder.start(memory)).logits
    assert forced.std() > 0.1
    close(stepped(decoder, words, decoder.start(memory)), forced)


def test_a_logit_depends_on_earlier_words_only(decoder, memory):
    words = words_of(NUM_IMAGES, decoder)
    changed = words.clone()
    changed[:, 3] = (changed[:, 3] + 1).clamp(max=SUPPLIED["vocab_size"] - 1)
    before, after = (decoder(w, decoder.start(memory)).logits for w in (words, changed))
    close(after[:, :3], before[:, :3])
    assert (after[:, 3:] - before[:, 3:]).abs().amax() > 1e-2


def test_every_valid_slot_is_read_and_no_masked_one(decoder, memory):
    words = words_of(NUM_IMAGES, decoder)
    before = decoder(words, decoder.start(memory)).logits
    for position in range(NUM_POSITIONS):
        tokens = memory.tokens.clone()
        tokens[:, position] *= -2  # layer normalisation does not see a constant added
        after = decoder(words, decoder.start(memory._replace(tokens=tokens))).logits
        valid = memory.mask[:, position]
        close(after[~valid], before[~valid])
        assert ((after - before)[valid].abs().amax((1, 2)) > 1e-4).all(), f"position {position} is ignored"


def test_padding_changes_nothing(decoder, memory):
    words = words_of(NUM_IMAGES, decoder)
    padding = torch.full((NUM_IMAGES, 4, decoder.memory_dim), 5.0)
    padded = Memory(
        torch.cat([memory.tokens, padding], 1),
        torch.cat([memory.mask, torch.zeros(NUM_IMAGES, 4, dtype=torch.bool)], 1),
        {**memory.segments, "image": slice(NUM_TAGS, NUM_POSITIONS + 4)},
    )
    expected = decoder(words, decoder.start(memory)).logits
    close(decoder(words, decoder.start(padded)).logits, expected)
    close(stepped(decoder, words, decoder.start(padded)), expected)


def test_a_prefix_decoder_reads_masked_slots_as_if_they_were_not_there(decoder, memory, request):
    if request.node.callspec.params["decoder"] not in PREFIX:
        pytest.skip("an attending decoder knows a position by its index within the segment")
    words = words_of(NUM_IMAGES, decoder)
    expected = decoder(words, decoder.start(memory)).logits
    for i, valid in enumerate(memory.mask):
        tags, image = valid[:NUM_TAGS].sum(), valid.sum()
        alone = Memory(
            memory.tokens[i : i + 1, valid],
            memory.mask[i : i + 1, valid],
            {"tags": slice(0, int(tags)), "image": slice(int(tags), int(image))},
        )
        close(decoder(words[i : i + 1], decoder.start(alone)).logits, expected[i : i + 1])


def test_an_image_does_not_depend_on_who_is_in_the_batch(decoder, memory):
    words = words_of(NUM_IMAGES, decoder)
    expected = decoder(words, decoder.start(memory)).logits
    for i in range(NUM_IMAGES):
        alone = Memory(memory.tokens[i : i + 1], memory.mask[i : i + 1], memory.segments)
        close(decoder(words[i : i + 1], decoder.start(alone)).logits, expected[i : i + 1])


def test_select_leaves_the_old_state_usable(decoder, memory):
    words = words_of(NUM_IMAGES, decoder)
    expected = stepped(decoder, words, decoder.start(memory))
    state = decoder.start(memory)
    _, state = decoder.step(words[:, 0], state)
    for chosen in (
        [2, 0, 2, 1],
        [2, 0, 2, 1],
        [1, 2, 0],
    ):  # what happens to one must not reach where it came from
        rows = torch.tensor(chosen)
        close(stepped(decoder, words[rows, 1:], state.select(rows)), expected[rows, 1:])
    close(stepped(decoder, words[:, 1:], state), expected[:, 1:])


def test_selected_rows_equal_repeated_memory_with_gradients(decoder, memory):
    rows = torch.tensor([0, 0, 1, 2, 2, 2])
    words = words_of(len(rows), decoder)
    weight = randn(len(rows), decoder.max_length, SUPPLIED["vocab_size"], seed=3)

    def run(repeat_first: bool) -> tuple[torch.Tensor, list[torch.Tensor]]:
        tokens = memory.tokens.clone().requires_grad_()
        if repeat_first:
            state = decoder.start(Memory(tokens[rows], memory.mask[rows], memory.segments))
        else:
            state = decoder.start(memory._replace(tokens=tokens)).select(rows)
        logits = decoder(words, state).logits
        wanted = [tokens, *decoder.parameters()]
        gradients = torch.autograd.grad((logits * weight).sum(), wanted, materialize_grads=True)
        return logits.detach(), list(gradients)

    (logits, gradients), (expected, expected_gradients) = run(False), run(True)
    close(logits, expected)
    for actual, reference in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(actual, reference, rtol=1e-4, atol=1e-4 * float(reference.abs().max() + 1))
    reached = gradients[0].abs().amax(2) > 0
    assert torch.equal(reached, memory.mask), "valid positions get a gradient, masked positions none"


def test_every_parameter_is_trained(decoder, memory):
    words = words_of(NUM_IMAGES, decoder)
    output = decoder.train()(words, decoder.start(memory))
    sum([output.logits.square().sum(), *output.losses.values()]).backward()
    idle = [
        name
        for name, p in decoder.named_parameters()
        if p.requires_grad and (p.grad is None or not p.grad.any())
    ]
    assert not idle


def test_too_much_memory_is_refused_or_read(decoder):
    """A decoder with a limit says so in words; one without reads on."""
    tokens = randn(1, 60, decoder.memory_dim, seed=4)
    memory = Memory(tokens, torch.ones(1, 60, dtype=torch.bool), {"image": slice(0, 60)})
    try:
        state = decoder.start(memory)
    except ValueError as error:
        assert "image_tokens.count" in str(error)
    else:
        assert decoder(words_of(1, decoder), state).logits.isfinite().all()


class TestCausalLMAgainstHuggingFace:
    """The contract's view of GPT-2 equals the model itself, run on image tokens and words side by side."""

    @pytest.fixture(params=["causal_lm"])
    def decoder(self, request: pytest.FixtureRequest) -> Decoder:
        torch.manual_seed(0)
        return construct(lookup("decoder", request.param), TINY["causal_lm"], SUPPLIED).eval()

    def test_same_logits(self, decoder, memory):
        words = words_of(NUM_IMAGES, decoder)
        embeds = torch.cat([memory.tokens, decoder.lm.get_input_embeddings()(words)], 1)
        mask = torch.cat([memory.mask, torch.ones_like(words, dtype=torch.bool)], 1).long()
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        together = gpt2_of_transformers(decoder.lm)(
            inputs_embeds=embeds, attention_mask=mask, position_ids=positions
        ).logits
        close(decoder(words, decoder.start(memory)).logits, together[:, NUM_POSITIONS:])

    def test_without_masked_slots_these_are_its_default_positions(self, decoder, memory):
        words = words_of(NUM_IMAGES, decoder)
        embeds = torch.cat([memory.tokens, decoder.lm.get_input_embeddings()(words)], 1)
        full = memory._replace(mask=torch.ones_like(memory.mask))
        close(
            decoder(words, decoder.start(full)).logits,
            gpt2_of_transformers(decoder.lm)(inputs_embeds=embeds).logits[:, NUM_POSITIONS:],
        )


def test_logits_of_real_words_alone_are_the_same(decoder: Decoder, memory: Memory) -> None:
    rows = torch.tensor([0, 2, 2, 1])  # an image with two captions
    words = words_of(len(rows), decoder)
    real = torch.arange(words.shape[1]) < torch.tensor([[3], [words.shape[1]], [1], [2]])
    expected = decoder(words, decoder.start(memory).select(rows)).logits[real]
    if hasattr(decoder, "read_real"):
        found = decoder.read_real(words, real, memory, rows)
    elif getattr(decoder, "skips_padding", False):
        found = decoder(words, decoder.start(memory).select(rows), real)
    else:
        pytest.skip("it computes the logits of padding, too")
    close(found.logits, expected)
