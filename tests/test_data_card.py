import json

import datasets
import pytest
from datasets import Dataset
from transformers import AutoTokenizer

from alignx.data import card_text, data_card, encode_rows, translation_instructions
from alignx.data.card import EDGES, count_words
from alignx.demo import demo_model

PAIRS = [("en", "de", "One two three", "eins zwei drei"), ("de", "en", "vier", "four"), ("zh", "sw", "世界人权", "haki za binadamu"), ("en", "th", "rights", "สิทธิ")]


@pytest.fixture(scope="module")
def tokenizer():
    datasets.disable_progress_bars()
    return AutoTokenizer.from_pretrained(demo_model())


@pytest.fixture(scope="module")
def encoded(tokenizer):
    names = ("source_lang", "target_lang", "source", "target")
    rows = translation_instructions(Dataset.from_list([{"id": "0", "domain": "", **dict(zip(names, pair))} for pair in PAIRS]))
    general = Dataset.from_list([{"instruction": "Name a colour.", "input": "", "output": "Blue", "lang": "en", "source_lang": None, "target_lang": None}], features=rows.features)
    return encode_rows(datasets.concatenate_datasets([rows, general]), tokenizer, template="plain")


def test_card_counts_what_the_rows_hold(encoded, tokenizer):
    card = data_card(encoded, tokenizer, ["en", "de", "zh", "sw", "th"])
    assert card["directions"] == {"en→de": 1, "de→en": 1, "zh→sw": 1, "en→th": 1, "other": 1}
    assert {code: one["sentences"] for code, one in card["languages"].items()} == {"en": 3, "de": 2, "zh": 1, "sw": 1, "th": 1}
    for code, text in (("sw", "haki za binadamu"), ("zh", "世界人权"), ("th", "สิทธิ")):
        tokens = len(tokenizer(text, add_special_tokens=False)["input_ids"])
        assert card["languages"][code]["tokens"] == tokens
        assert card["languages"][code]["tokens_per_word"] == pytest.approx(tokens / count_words(text, code), abs=1e-3)
    assert [card["languages"][code]["word"] for code in ("zh", "th", "sw")] == ["character", "character", "between spaces"]
    assert sum(card["row_lengths"].values()) == 5 and card["counts"]["tokens"] == sum(map(len, encoded["input_ids"]))
    assert json.loads(json.dumps(card)) == card


def test_lengths_fall_into_their_bins(tokenizer):
    features = {"labels": [-100], "source_lang": -1, "target_lang": -1, "truncated": 0, "attention_mask": [1]}
    rows = Dataset.from_list([{**features, "input_ids": [1] * length, "spans": [0] * length, "labels": [-100] * length} for length in (1, 15, 16, 31, 32, 5000)])
    lengths = data_card(rows, tokenizer)["row_lengths"]
    assert (lengths["0–15"], lengths["16–31"], lengths["32–63"], lengths[f"≥ {EDGES[-1]}"], sum(lengths.values())) == (2, 2, 1, 1, 6)


def test_languages_that_were_not_named_keep_their_number(encoded, tokenizer):
    card = data_card(encoded, tokenizer, ["en", "de"])
    assert sum(code.startswith("#") for code in card["languages"]) == 3
    assert all(one["tokens_per_word"] is None for code, one in card["languages"].items() if code.startswith("#"))


def test_a_card_of_nothing(tokenizer, encoded):
    card = data_card(encoded.select([]), tokenizer)
    assert card["counts"]["rows"] == 0 and card["languages"] == {} and "| rows | 0 |" in card_text(card)


@pytest.mark.parametrize(("text", "language", "words"), [("", "en", 0), ("– … !", "en", 0), ("don't stop", "en", 2), ("İki kelime", "tr", 2), ("حقوق الإنسان", "ar", 2), ("ニュース1", "ja", 5), ("দুই শব্দ", "bn", 2), ("a\u00a0b", "fr", 2)])
def test_words(text, language, words):
    assert count_words(text, language) == words


def test_text_has_every_language_and_direction(encoded, tokenizer):
    text = card_text(data_card(encoded, tokenizer, ["en", "de", "zh", "sw", "th"]), "Mine")
    assert text.startswith("## Mine") and all(f"| {name} |" in text for name in ("zh", "zh→sw", "other", "0–15"))
