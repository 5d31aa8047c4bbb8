"""Perplexity against the definition, one text at a time in float64."""
import math

import pytest
import torch

from alignx.errors import InputError, UsageError
from alignx.evaluate import perplexity as perplexity_from_room
from alignx.evaluate.language_modeling import _batch_loss, perplexity, perplexity_by_language, sentences_by_language
from evaluate_tools import byte_tokenizer, tiny_model

TEXTS = ["Peace.", "Everyone has the right to education.", "平和", "a"]


def reference(model, tokenizer, texts, cut=10**6):
    "The definition, token by token."
    losses = []
    for text in texts:
        ids = tokenizer(text)["input_ids"][:cut]
        with torch.no_grad():
            logs = model(input_ids=torch.tensor([ids])).logits[0].double().log_softmax(-1)
        losses += [-logs[t - 1, ids[t]].item() for t in range(1, len(ids)) if ids[t] not in (0, 1, 2)]
    return math.exp(sum(losses) / len(losses))


@pytest.mark.parametrize("kind", ["llama", "gpt2", "bloom"])
@pytest.mark.parametrize("single", ["<s> $A", "$A", "<s> $A </s>"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_equals_the_definition(kind, single, side):
    model, tokenizer = tiny_model(kind), byte_tokenizer(single, padding_side=side)
    for batch_size in (1, 3):
        assert perplexity(model, tokenizer, TEXTS, batch_size) == pytest.approx(reference(model, tokenizer, TEXTS), rel=1e-5)


def test_tokens_weigh_the_same_and_not_texts():
    model, tokenizer = tiny_model(), byte_tokenizer()
    short, long = (math.log(perplexity(model, tokenizer, [text])) for text in ("ab", "x" * 98))
    both = math.log(perplexity(model, tokenizer, ["ab", "x" * 98]))
    assert both == pytest.approx((2 * short + 98 * long) / 100, rel=1e-5)


def test_chunks_of_positions_change_nothing():
    model = tiny_model()
    ids = torch.randint(4, 200, (3, 20), generator=torch.Generator().manual_seed(0))
    inputs, content = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}, torch.ones(3, 20)
    with torch.no_grad():
        whole, pieces = _batch_loss(model, inputs, content, 10**6), _batch_loss(model, inputs, content, 7)
    assert whole == pytest.approx(pieces) and whole[1] == 57


def test_a_model_that_guesses_has_the_vocabulary_size():
    model = tiny_model()
    model.lm_head.weight.data.zero_()
    assert perplexity(model, byte_tokenizer(), TEXTS) == pytest.approx(model.config.vocab_size, rel=1e-5)


def test_long_texts_are_cut():
    model, tokenizer = tiny_model(), byte_tokenizer()
    assert perplexity(model, tokenizer, ["x" * 300], max_length=10) == pytest.approx(reference(model, tokenizer, ["x" * 300], 10), rel=1e-5)


@pytest.mark.parametrize("kind", ["bert", "xlmr", "t5"])
def test_other_kinds_of_model_are_refused(kind):
    with pytest.raises(UsageError, match="causal"):
        perplexity(tiny_model(kind), byte_tokenizer(), TEXTS)


def test_nothing_to_predict():
    with pytest.raises(InputError, match="no token to predict"):
        perplexity(tiny_model(), byte_tokenizer("$A"), ["a"])
    with pytest.raises(InputError, match="sentence 1"):
        perplexity(tiny_model(), byte_tokenizer(), ["a", ""])


def test_by_language_from_rows_counts_each_sentence_once():
    rows = [dict(source="Peace.", source_lang="en", target=t, target_lang=l) for t, l in (("Frieden.", "de"), ("Amani.", "sw"), ("Friede.", "de"))]
    expected = {"en": ["Peace."], "de": ["Frieden.", "Friede."], "sw": ["Amani."]}
    assert sentences_by_language(rows) == expected
    model, tokenizer = tiny_model(), byte_tokenizer()
    found = perplexity_by_language(model, tokenizer, rows)
    assert found == perplexity_by_language(model, tokenizer, expected)
    assert found["de"] == pytest.approx(reference(model, tokenizer, expected["de"]), rel=1e-5)
    assert callable(perplexity_from_room)
