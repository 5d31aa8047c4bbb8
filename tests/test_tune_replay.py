from collections import Counter

import datasets
import pytest
import torch
from datasets import Dataset
from transformers import AutoTokenizer

from align_batches import tiny
from alignx.data import encode_rows, load_parallel
from alignx.demo import demo_corpus, demo_model
from alignx.errors import InputError, UsageError
from alignx.tune import PLAIN_SENTENCE, mix_weights, replay_rows


@pytest.fixture(scope="module")
def rows():
    datasets.disable_progress_bars()
    return load_parallel(demo_corpus(), languages=["en", "zh", "ar", "sw"], split="validation")


def test_exact_counts_and_the_seed_decides(rows):
    drawn = replay_rows(rows, 101, pivot_share=0.4, seed=5)
    counts = Counter(drawn["lang"])
    assert len(replay_rows(rows, 0)) == 0 and len(drawn) == 101 and counts["en"] in (40, 41) and all(counts[language] in (20, 21) for language in ("zh", "ar", "sw"))
    assert drawn[:] == replay_rows(rows, 101, pivot_share=0.4, seed=5)[:] != replay_rows(rows, 101, pivot_share=0.4, seed=6)[:]
    sentences = {(row[f"{side}_lang"], row[side]) for row in rows for side in ("source", "target")}
    assert {(row["lang"], row["output"]) for row in drawn} <= sentences


@pytest.mark.parametrize(("share", "languages"), [(1.0, {"en"}), (0.0, {"zh", "ar", "sw"})])
def test_one_language_or_all_but_one(rows, share, languages):
    assert set(replay_rows(rows, 60, pivot_share=share)["lang"]) == languages


def test_each_sentence_once_before_any_comes_again(rows):
    distinct = len(set(rows["source"]))
    drawn = replay_rows(rows, 2 * distinct, pivot_share=1.0)
    assert set(Counter(drawn["output"]).values()) == {2}


def test_a_replayed_row_is_the_sentence_and_nothing_else(rows):
    tokenizer = AutoTokenizer.from_pretrained(demo_model())
    drawn = replay_rows(rows, 30)
    for row, encoded in zip(drawn, encode_rows(drawn, tokenizer, template=PLAIN_SENTENCE)):
        assert encoded["input_ids"] == tokenizer(row["output"], split_special_tokens=True)["input_ids"] + [tokenizer.eos_token_id]
        assert encoded["labels"][1:] == encoded["input_ids"][1:]
        assert set(encoded["spans"]) == {0} and encoded["source_lang"] == encoded["target_lang"] == -1


def test_bad_requests(rows):
    with pytest.raises(InputError, match="'fr'"):
        replay_rows(rows, 1, pivot="fr")
    with pytest.raises(InputError, match="no rows"):
        replay_rows(Dataset.from_dict({"source": [], "target": [], "source_lang": [], "target_lang": []}), 1)
    for wrong in ({"count": -1}, {"count": 3, "pivot_share": 2}):
        with pytest.raises(UsageError):
            replay_rows(rows, **wrong)


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_mixed_weights_lie_between(share):
    model, base = tiny(seed=0), tiny(seed=1)
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    untouched = {name: weight.clone() for name, weight in base.named_parameters()}
    mix_weights(model, base, share)
    for name, weight in model.named_parameters():
        expected = (1 - share) * before[name].double() + share * untouched[name].double()
        assert torch.allclose(weight.double(), expected, atol=1e-6), name
        assert torch.equal(dict(base.named_parameters())[name], untouched[name])
    assert model.lm_head.weight is model.model.embed_tokens.weight, "tied weights stay tied"


def test_mixing_refuses_another_model_and_another_share():
    with pytest.raises(InputError, match="started from"):
        mix_weights(tiny("llama"), tiny("gpt2"), 0.5)
    with pytest.raises(UsageError, match="between 0 and 1"):
        mix_weights(tiny(), tiny(), -0.1)
