"""Option ranking against the definition, one option at a time in float64, and against lm-eval."""
import numpy as np
import pandas as pd
import pytest
import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from alignx.demo import demo_model
from alignx.errors import InputError, UsageError
from alignx.evaluate.choices import (
    NORMALIZATIONS,
    choice_items,
    choice_rows,
    log_likelihoods,
    option_scores,
    option_tokens,
    rank_options,
)
from evaluate_tools import byte_tokenizer, tiny_model

QUESTION = {"id": "a", "lang": "en", "question": "Where? ", "options": ["here", "there and there", "x"], "answer": 1}
ROWS = [
    QUESTION,
    {"id": "b", "lang": "de", "question": "Wo ist es, und warum?\n", "options": ["hier", "dort"], "answer": 0, "task": "place"},
    {"id": "c", "lang": "zh", "question": "", "options": ["北京", "中国", "人", "ab"], "answer": 2},
    {"id": "a", "lang": "de", "question": "A, B?", "options": ["A", "B"], "answer": 0},
]


def reference(model, prompt, option):
    "log P(option | prompt) in float64, from token ids, one forward pass per option."
    ids = torch.tensor([prompt + option])
    with torch.no_grad():
        logs = model(input_ids=ids).logits[0].double().log_softmax(-1)
    return sum(logs[len(prompt) + k - 1, token].item() for k, token in enumerate(option))


def by_hand(model, tokenizer, row, how):
    "The scores of one row whose tokenizer has one token per byte."
    scores = []
    for text in row["options"]:
        prompt, option = [1] + tokenizer(row["question"], add_special_tokens=False)["input_ids"], tokenizer(text, add_special_tokens=False)["input_ids"]
        value = reference(model, prompt, option)
        rest = [1] + tokenizer(row["question"][len(row["question"].rstrip()) :], add_special_tokens=False)["input_ids"]
        alone = reference(model, rest, option)
        scores.append({"tokens": value / len(option), "bytes": value / len(text.encode()), "characters": value / len(text), "none": value, "unconditional": value - alone}[how])
    return scores


@pytest.mark.parametrize("how", NORMALIZATIONS)
@pytest.mark.parametrize("kind", ["llama", "gpt2", "bloom"])
def test_equals_the_definition(kind, how):
    model, tokenizer = tiny_model(kind), byte_tokenizer()
    expected = [score for row in ROWS for score in by_hand(model, tokenizer, row, how)]
    for batch_size in (1, 3, 32):
        np.testing.assert_allclose(option_scores(model, tokenizer, ROWS, how, batch_size)["score"], expected, atol=2e-5)


def test_a_model_in_float64_agrees_to_the_last_digits():
    model, tokenizer = tiny_model().double(), byte_tokenizer()
    expected = [score for row in ROWS for score in by_hand(model, tokenizer, row, "none")]
    np.testing.assert_allclose(option_scores(model, tokenizer, ROWS, "none")["score"], expected, atol=1e-5)


@pytest.mark.parametrize("single", ["$A", "$A </s>", "<s> $A </s>"])
def test_what_the_tokenizer_adds_behind_is_never_scored(single):
    model = tiny_model()
    rows = [row for row in ROWS if row["question"] or single.startswith("<s>")]
    plain = option_tokens(byte_tokenizer("<s> $A" if single.startswith("<s>") else "$A"), choice_rows(rows))
    assert option_tokens(byte_tokenizer(single), choice_rows(rows)) == plain
    assert np.isfinite(option_scores(model, byte_tokenizer(single), rows)["score"]).all()


def test_an_empty_question_is_read_after_bos_and_a_written_bos_is_not_doubled():
    rows = choice_rows([{**QUESTION, "question": ""}, {**QUESTION, "id": 2, "question": "<s>"}])
    for single in ("<s> $A", "$A"):
        empty, written = option_tokens(byte_tokenizer(single), rows)
        assert empty == written and empty[0] == ([1] + byte_tokenizer("$A")("here")["input_ids"], 4)


def test_batch_size_padding_side_and_order_change_nothing():
    model = tiny_model()
    base = option_scores(model, byte_tokenizer(), ROWS)
    for side in ("left", "right"):
        for rows in (ROWS, ROWS[::-1]):
            other = option_scores(model, byte_tokenizer(padding_side=side), rows, batch_size=2)
            merged = base.merge(other, on=["task", "lang", "id", "option"], suffixes=("", "_other"))
            assert len(merged) == len(base)
            np.testing.assert_allclose(merged["score"], merged["score_other"], atol=1e-5)
            assert len(choice_items(base).merge(choice_items(other))) == len(choice_items(base))


def test_datasets_and_dataframes_and_lists_are_the_same():
    model, tokenizer = tiny_model(), byte_tokenizer()
    rows = [{**row, "task": row.get("task")} for row in ROWS]
    frames = [rank_options(model, tokenizer, kind) for kind in (rows, pd.DataFrame(rows), Dataset.from_list(rows))]
    pd.testing.assert_frame_equal(frames[0], frames[1])
    pd.testing.assert_frame_equal(frames[0], frames[2])
    assert set(frames[0]["metric"]) == {"accuracy", "accuracy_chance", "place/accuracy", "place/accuracy_chance"}
    assert frames[0]["layer"].isna().all() and (frames[0]["source_lang"] == frames[0]["target_lang"]).all()


def merging_tokenizer():
    "A tokenizer that makes one token of `:x`, and bytes of everything else."
    letters = {letter: index for index, letter in enumerate(["<s>", "</s>", "<unk>", *"abcx:"])}
    backend = Tokenizer(models.BPE({**letters, ":x": len(letters)}, [(":", "x")], unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split("~", "isolated")
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>", model_max_length=64)


def test_where_prompt_and_option_merge_all_options_begin_at_the_same_token():
    tokenizer = merging_tokenizer()
    (first, second), = option_tokens(tokenizer, choice_rows([{**QUESTION, "question": "ab:", "options": ["xa", "ca"], "answer": 0}]))
    assert tokenizer.convert_ids_to_tokens(first[0]) == ["<s>", "a", "b", ":x", "a"] and first[1] == 2
    assert tokenizer.convert_ids_to_tokens(second[0]) == ["<s>", "a", "b", ":", "c", "a"] and second[1] == 3
    model = tiny_model()
    scores = option_scores(model, tokenizer, [{**QUESTION, "question": "ab:", "options": ["xa", "ca"], "answer": 0}], "none")
    expected = [reference(model, first[0][:-2], first[0][-2:]), reference(model, second[0][:-3], second[0][-3:])]
    np.testing.assert_allclose(scores["score"], expected, atol=1e-5)


def test_equals_lm_eval():
    huggingface = pytest.importorskip("lm_eval.models.huggingface")
    from lm_eval.api.instance import Instance

    model, tokenizer = AutoModelForCausalLM.from_pretrained(demo_model(), dtype=torch.float32), AutoTokenizer.from_pretrained(demo_model())
    rows = [
        {"id": 0, "lang": "en", "question": "Everyone has the right to", "options": [" education", " a nationality.", " life, liberty and security"], "answer": 0},
        {"id": 1, "lang": "de", "question": "Jeder hat das Recht auf: ", "options": ["Bildung", "Ruhe"], "answer": 0},
        {"id": 2, "lang": "sw", "question": "", "options": ["Kila mtu", "Mtu"], "answer": 0},
        {"id": 3, "lang": "zh", "question": "人人有权" * 150, "options": ["受教育", "享有生命"], "answer": 0},
    ]
    theirs = huggingface.HFLM(pretrained=model, tokenizer=tokenizer, batch_size=2)
    requests = [Instance("loglikelihood", row, (row["question"], option), k) for row in rows for k, option in enumerate(row["options"])]
    expected = [value for value, _ in theirs.loglikelihood(requests, disable_tqdm=True)]
    np.testing.assert_allclose(option_scores(model, tokenizer, rows)["log_likelihood"], expected, atol=1e-3)


def test_equal_inputs_run_once():
    model, tokenizer, seen = tiny_model(), byte_tokenizer(), []
    model.register_forward_pre_hook(lambda module, args, kwargs: seen.append(len(kwargs["input_ids"])), with_kwargs=True)
    option_scores(model, tokenizer, [{**QUESTION, "options": list("ABCD")}])
    assert seen == [1]


def test_ties_are_misses():
    blank = tiny_model()
    torch.nn.init.zeros_(blank.get_output_embeddings().weight)
    for how in ("tokens", "unconditional"):
        items = rank_options(blank, byte_tokenizer(), ROWS, how)
        assert (items.loc[items["metric"].str.endswith("accuracy"), "value"] == 0).all()
    chance = items[items["metric"].str.endswith("chance")].set_index(["id", "target_lang"])["value"]
    assert chance["a", "en"] == pytest.approx(1 / 3) and chance["c", "zh"] == 0.25


def test_hits_are_the_argmax():
    table = option_scores(tiny_model(), byte_tokenizer(), ROWS)
    best = table.loc[table.groupby(["lang", "id"])["score"].idxmax()].set_index(["lang", "id"])["correct"]
    items = choice_items(table, "m").query("metric.str.endswith('accuracy')").set_index(["target_lang", "id"])["value"]
    assert 0 < len(items) == len(ROWS) and all(items[key] == best[key] for key in items.index)


BAD = [
    ({"options": ["one"]}, "'options': a choice needs two options"),
    ({"options": []}, "'options': a choice needs two options"),
    ({"options": "here"}, "'options': expected a list"),
    ({"options": ["a", 2]}, "'options': expected a list"),
    ({"options": ["a", "b", "a"]}, "'options': 'a' occurs twice"),
    ({"options": ["a", ""], "answer": 0}, "'options': '' adds no token"),
    ({"answer": 3}, "'answer': expected the index of an option, 0 to 2, got 3"),
    ({"answer": -1}, "'answer': expected"),
    ({"answer": True}, "'answer': expected"),
    ({"answer": 1.0}, "'answer': expected"),
    ({"question": None}, "'question' is missing"),
    ({"question": 3}, "'question': expected a string"),
    ({"lang": None}, "'lang' is missing"),
]


@pytest.mark.parametrize("change, message", BAD)
def test_a_bad_row_is_named_with_its_field(change, message):
    with pytest.raises(InputError, match="choice row 1: field " + message.replace("(", r"\(")):
        option_scores(tiny_model(), byte_tokenizer(), [ROWS[1], {**QUESTION, **change}])


def test_other_bad_input():
    model, tokenizer = tiny_model(), byte_tokenizer()
    with pytest.raises(InputError, match="choice row 1: field 'id': 'a' occurs twice in language 'en'"):
        option_scores(model, tokenizer, [QUESTION, QUESTION])
    with pytest.raises(InputError, match="there is no row"):
        option_scores(model, tokenizer, [])
    with pytest.raises(UsageError, match="unknown normalize 'token'; did you mean 'tokens'"):
        option_scores(model, tokenizer, ROWS, "token")
    with pytest.raises(InputError, match="an option of 30 tokens, and the model reads 20"):
        option_scores(model, tokenizer, [{**QUESTION, "options": ["a", "b" * 30]}], max_length=20)
    with pytest.raises(UsageError, match="needs the model's tokenizer, got None"):
        option_scores(model, None, ROWS)
    with pytest.raises(InputError, match="has the same tokens"):
        option_scores(model, merging_tokenizer(), [{**QUESTION, "options": ["y", "z", "a"]}])


@pytest.mark.parametrize("kind", ["bert", "xlmr", "t5"])
def test_models_that_do_not_go_on_writing_are_refused(kind):
    with pytest.raises(UsageError, match="needs a causal language model"):
        option_scores(tiny_model(kind), byte_tokenizer("<s> $A </s>"), ROWS)


def test_weights_that_are_no_numbers_are_named():
    model = tiny_model()
    with torch.no_grad():
        model.model.norm.weight.fill_(float("nan"))
    with pytest.raises(InputError, match="choice row 0: the likelihood is not a number"):
        option_scores(model, byte_tokenizer(), ROWS)


def test_long_prompts_lose_their_beginning():
    model, tokenizer = tiny_model(), byte_tokenizer()
    row = {**QUESTION, "question": "z" * 300 + "Where? "}
    ids, count = option_tokens(tokenizer, choice_rows([row]))[0][1]
    expected = reference(model, ids[-129:-count], ids[-count:])
    assert option_scores(model, tokenizer, [row], "none")["score"][1] == pytest.approx(expected, abs=1e-4)
    assert log_likelihoods(model, [(ids[-129:], count)])[0] == pytest.approx(expected, abs=1e-4)


def test_the_mode_of_the_model_is_kept():
    model = tiny_model("gpt2").train()
    first, second = (option_scores(model, byte_tokenizer(), ROWS)["score"] for _ in range(2))
    assert model.training and (first == second).all()
