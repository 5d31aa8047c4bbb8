"""Perplexity against the definition, one text at a time in float64."""
import math

import numpy as np
import pytest
import torch

from alignx.errors import InputError, UsageError
from alignx.evaluate import perplexity as perplexity_from_room
from alignx.evaluate.language_modeling import _batch_loss, compare_losses, language_modeling_table, losses_by_language, perplexity
from alignx.evaluate.language_modeling import perplexity_by_language, sentence_losses, sentences_by_language
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
    assert whole[0] == pytest.approx(pieces[0]) and whole[1].tolist() == pieces[1].tolist() == [19, 19, 19]


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


@pytest.mark.parametrize("single, first", [("<s> $A", 0), ("$A", 1)])
def test_bytes_are_those_of_the_predicted_tokens(single, first):
    texts = ["Peace.", "平和です", "x" * 300]
    losses = sentence_losses(tiny_model(), byte_tokenizer(single), texts, max_length=50)
    assert losses["tokens"].tolist() == [6 - first, 12 - first, 49]
    skipped = [0, 0, 0] if not first else [1, len("平".encode()), 1]  # offsets are characters: the first byte stands for its whole character
    assert losses["bytes"].tolist() == [len(text.encode()) - skip for text, skip in zip([texts[0], texts[1], "x" * (50 - 1 + first)], skipped)]


def test_a_loss_is_that_of_the_text_alone():
    model, tokenizer = tiny_model(), byte_tokenizer()
    together = sentence_losses(model, tokenizer, TEXTS, batch_size=4)
    for number, text in enumerate(TEXTS):
        alone = sentence_losses(model, tokenizer, [text])
        assert together["nats"][number] == pytest.approx(alone["nats"][0], rel=1e-5) and together["tokens"][number] == alone["tokens"][0]


def test_broken_weights_are_named():
    model = tiny_model()
    model.lm_head.weight.data[5] = float("nan")
    with pytest.raises(InputError, match="text 0: the loss is nan"):
        sentence_losses(model, byte_tokenizer(), TEXTS)


def test_table_and_comparison_against_plain_loops():
    tokenizer, texts = byte_tokenizer(), {"en": TEXTS, "sw": ["Amani.", "Kila mtu", "a b"]}
    before, after = (losses_by_language(tiny_model(seed=seed), tokenizer, texts) for seed in (0, 1))
    table = language_modeling_table(before, resamples=200, seed=4).set_index(["source_lang", "metric"])
    generator, part = np.random.default_rng(4), before[before["language"] == "en"]
    draws = [part.iloc[generator.integers(4, size=4)][["nats", "tokens"]].sum() for _ in range(200)]
    expected = np.exp(np.quantile([draw["nats"] / draw["tokens"] for draw in draws], [0.025, 0.975]))
    assert table.loc[("en", "perplexity"), ["low", "high"]].tolist() == pytest.approx(expected)
    assert table.loc[("sw", "perplexity"), "value"] == pytest.approx(reference(tiny_model(), tokenizer, texts["sw"]), rel=1e-5)
    assert table.loc[("sw", "bits_per_byte"), "value"] == pytest.approx(np.log2(table.loc[("sw", "perplexity"), "value"]), rel=1e-9)  # one token a byte
    change = compare_losses(before, after, resamples=100).set_index(["language", "metric"])
    other = language_modeling_table(after).set_index(["source_lang", "metric"])
    for language in texts:
        assert change.loc[(language, "perplexity"), "change"] == pytest.approx(other.loc[(language, "perplexity"), "value"] / table.loc[(language, "perplexity"), "value"] - 1)
        assert change.loc[(language, "bits_per_byte"), "change"] == pytest.approx(other.loc[(language, "bits_per_byte"), "value"] - table.loc[(language, "bits_per_byte"), "value"])
    with pytest.raises(InputError, match="different texts"):
        compare_losses(before, after[after["text"] > 0])


def test_perplexities_of_different_tokens_are_not_compared():
    before = losses_by_language(tiny_model(), byte_tokenizer(), {"en": TEXTS})
    after = before.assign(tokens=before["tokens"] + 1)
    assert compare_losses(before, after, resamples=10)["metric"].tolist() == ["bits_per_byte"]
    nothing = before.assign(bytes=np.nan)
    assert language_modeling_table(nothing, resamples=10).set_index("metric").loc["bits_per_byte", "n"] == 0
