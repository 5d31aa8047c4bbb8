"""Generation: the same text in any batch, in any order, with any padding side; nothing changed on the way."""
import copy
import logging

import pandas as pd
import pytest
import torch
from align_batches import CONFIGS, tiny
from datasets import Dataset
from evaluate_tools import byte_tokenizer, tiny_model
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from alignx.data import encode_rows, load_parallel, translation_instructions
from alignx.demo import demo_corpus, demo_model
from alignx.errors import InputError, UsageError
from alignx.evaluate.generation import Continuation, _cut, continuations, generate
from alignx.evaluate.translation import both_directions, check_outputs, translate, translation_prompts

PROMPTS = ["Everyone has the right to", "A", "No one shall be subjected to torture or to cruel, inhuman or", "Article 12. Toute personne", "自由"]
IDS = [[1, *range(5, 5 + n)] for n in (9, 1, 4, 15, 7)]
CHAT = "{% for message in messages %}{{ '<s>' + message['role'] + ': ' + message['content'] + '</s>' }}{% endfor %}"


@pytest.fixture(scope="module")
def demo():
    return AutoModelForCausalLM.from_pretrained(demo_model(), dtype=torch.float32), AutoTokenizer.from_pretrained(demo_model())


def naive(model, ids, steps, ends):
    "One prompt, no padding, no cache, no generate."
    ids, start = list(ids), len(ids)
    for _ in range(steps):
        with torch.inference_mode():
            token = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax().item()
        if token in ends:
            break
        ids.append(token)
    return ids[start:]


class Letters:
    "A tokenizer's surface for models whose vocabulary is nothing but numbers: token 17 is written ' 17'."

    eos_token_id, sep_token_id, pad_token_id, model_max_length, added_tokens_decoder = 2, None, 0, 10**30, {}

    def decode(self, ids, **options):
        return "".join(f" {token}" for token in ids)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_architecture_writes_in_a_batch_what_it_writes_alone(name):
    model, tokenizer = tiny(name), Letters()
    expected = [tokenizer.decode(naive(model, ids, 12, {2})) for ids in IDS]
    assert len(set(expected)) > 1, "prompts that all go on alike would prove nothing"
    for batch_size in (1, 2, 5):
        assert generate(model, tokenizer, IDS, max_new_tokens=12, batch_size=batch_size) == expected
    assert generate(model, tokenizer, IDS[::-1], max_new_tokens=12, batch_size=3) == expected[::-1]


def test_padding_is_not_right_by_luck():
    model = tiny("gpt2")
    padded = torch.tensor([[0] * 8 + IDS[1]]), torch.tensor([[0] * 8 + [1] * len(IDS[1])])
    with torch.inference_mode():
        wrong = model(input_ids=padded[0], attention_mask=padded[1]).logits[0, -1]  # positions of the row, not of the text
        right = model(input_ids=torch.tensor([IDS[1]])).logits[0, -1]
    assert not torch.allclose(wrong, right, atol=1e-3), "a model that does not care about positions would not test them"


def test_the_embedded_model_writes_the_same_by_hand_in_batches_and_backwards(demo):
    model, tokenizer = demo
    expected = [tokenizer.decode(naive(model, tokenizer(prompt)["input_ids"], 20, {tokenizer.eos_token_id}), skip_special_tokens=True) for prompt in PROMPTS]
    for batch_size, side in ((1, "right"), (2, "left"), (16, "right")):
        tokenizer.padding_side = side
        assert generate(model, tokenizer, PROMPTS, max_new_tokens=20, batch_size=batch_size) == expected
        assert tokenizer.padding_side == side
    tokenizer.padding_side = "right"
    assert generate(model, tokenizer, PROMPTS[::-1], max_new_tokens=20, batch_size=2) == expected[::-1]


def test_nothing_leaks_in_and_nothing_is_left_behind(demo):
    model, tokenizer = copy.deepcopy(demo[0]), demo[1]
    expected = generate(model, tokenizer, PROMPTS, max_new_tokens=16)
    for name, value in {"do_sample": True, "temperature": 5.0, "repetition_penalty": 3.0, "max_length": 7, "num_beams": 3, "suppress_tokens": list(range(10, 4000)), "use_cache": False}.items():
        setattr(model.generation_config, name, value)
    model.config.use_cache = False
    model.train()
    settings, config = copy.deepcopy(model.generation_config.to_dict()), copy.deepcopy(model.config.to_dict())
    assert generate(model, tokenizer, PROMPTS, max_new_tokens=16) == expected
    assert (model.generation_config.to_dict(), model.config.to_dict(), model.training) == (settings, config, True)
    with pytest.raises(InputError):
        generate(model, tokenizer, ["Peace. " * 400])
    assert model.generation_config.to_dict() == settings


def test_adapters_around_a_model_change_nothing(demo):
    inner, tokenizer = copy.deepcopy(demo[0]), demo[1]
    expected = generate(inner, tokenizer, PROMPTS, max_new_tokens=12)
    adapted = get_peft_model(inner, LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"]))
    inner.generation_config.repetition_penalty = 3.0
    before = adapted.generation_config, inner.generation_config
    assert generate(adapted, tokenizer, PROMPTS, max_new_tokens=12) == expected, "new adapters are the identity"
    assert adapted.generation_config is before[0] and inner.generation_config is before[1] and before[1].repetition_penalty == 3.0


def test_a_tokenizer_without_padding_token_and_ones_that_close_their_texts():
    model = tiny_model("gpt2")
    plain = generate(model, byte_tokenizer(), PROMPTS, max_new_tokens=10)
    without = byte_tokenizer(pad=False)
    assert generate(model, without, PROMPTS, max_new_tokens=10, batch_size=5) == plain
    assert without.pad_token is None
    assert generate(model, byte_tokenizer(single="<s> $A </s>"), PROMPTS, max_new_tokens=10) == plain, "the end of a prompt is not the end of the text"


def test_what_ended_a_text(demo):
    model, tokenizer = demo
    budget = continuations(model, tokenizer, PROMPTS[:1], max_new_tokens=2)[0]
    assert budget.stopped == "length" and budget.text
    line = continuations(model, tokenizer, PROMPTS, max_new_tokens=40, stop="\n")
    whole = generate(model, tokenizer, PROMPTS, max_new_tokens=40)
    for one, text in zip(line, whole):
        assert one == (Continuation(*_cut(text, ["\n"])[:1], "stop") if _cut(text, ["\n"])[1] else Continuation(text, one.stopped))
    assert "stop" in {one.stopped for one in line}
    assert [one.text for one in line] == [one.text for prompt in PROMPTS for one in continuations(model, tokenizer, [prompt], max_new_tokens=40, stop=["\n"])]


def test_the_checkpoints_own_end_tokens_end_a_text():
    model, tokenizer = tiny("llama"), Letters()
    full = naive(model, IDS[0], 12, set())
    end = next(token for token in full[1:] if token not in full[: full.index(token)])
    model.generation_config.eos_token_id = [2, end]
    written = continuations(model, tokenizer, [IDS[0]], max_new_tokens=12)[0]
    assert written == Continuation(tokenizer.decode(full[: full.index(end)]), "eos")


def test_a_stop_string_counts_after_the_first_visible_character():
    assert _cut("\n\n Ja.\nNein.", ["\n"]) == ("\n\n Ja.", True)
    assert _cut("Ja. ### Nein", ["\n", "###"]) == ("Ja. ", True)
    assert _cut(" \n ", ["\n"]) == (" \n ", False)


def test_what_cannot_write_says_so(demo):
    model, tokenizer = demo
    for kind in ("bert", "xlmr", "t5"):
        with pytest.raises(UsageError, match="causal language model"):
            generate(tiny_model(kind), byte_tokenizer(), ["a"])
    with pytest.raises(UsageError, match="tokenizer"):
        generate(model, None, ["a"])
    with pytest.raises(InputError, match="prompt 1: 2503 tokens.*context of 512|prompt 1: .*context of 512"):
        generate(model, tokenizer, ["Peace.", "Peace. " * 500])
    with pytest.raises(InputError, match="prompt 1: expected a string"):
        generate(model, tokenizer, ["a", None])
    with pytest.raises(InputError, match="prompt 0: no token"):
        generate(tiny_model("gpt2"), byte_tokenizer(single="$A"), [""])
    with pytest.raises(UsageError, match="max_new_tokens"):
        generate(model, tokenizer, ["a"], max_new_tokens=0)
    with pytest.raises(UsageError, match="stop"):
        generate(model, tokenizer, ["a"], stop=[""])
    assert generate(model, tokenizer, []) == []


def test_weights_that_are_not_numbers_are_an_error_and_not_a_text(demo):
    model = copy.deepcopy(demo[0])
    model.model.layers[2].mlp.down_proj.weight.data[0, 0] = float("nan")
    with pytest.raises(InputError, match="not numbers"):
        generate(model, demo[1], ["Peace."])


# translation


def rows(count=6):
    chosen = load_parallel(demo_corpus(), languages=["en", "de", "zh"], split="test").filter(lambda row: row["domain"] == "law")
    return chosen.select(range(count))


def test_both_directions_has_every_pair_once_each_way():
    both = both_directions(rows())
    assert len(both) == 12 and len({(row["id"], row["source_lang"], row["target_lang"]) for row in both}) == 12
    there, back = both[0], both[6]
    assert (there["source"], there["source_lang"]) == (back["target"], back["target_lang"]) and there["id"] == back["id"]
    assert len(both_directions(both)) == 12


@pytest.mark.parametrize("template", ["alpaca", "plain", "chat", "{instruction}\nUser: {input}\nAssistant: "])
@pytest.mark.parametrize("kind", ["demo", "bytes", "closing"])
def test_prompts_are_the_beginnings_of_training_rows(demo, template, kind):
    tokenizer = copy.deepcopy(demo[1]) if kind == "demo" else byte_tokenizer(single="<s> $A </s>" if kind == "closing" else "<s> $A")
    tokenizer.chat_template = CHAT
    wordings = ["Translate the following text from {source} to {target}."]
    trained = encode_rows(translation_instructions(rows(), wordings=wordings), tokenizer, max_length=4000, template=template, train_on="completion")
    for prompt, row in zip(translation_prompts(rows(), tokenizer, template), trained):
        assert row["input_ids"][: len(prompt)] == prompt and row["labels"][len(prompt)] != -100 and set(row["labels"][: len(prompt)]) == {-100}


def test_prompts_know_nothing_of_the_reference(demo):
    other = rows().map(lambda row: {"target": "something else"})
    assert translation_prompts(rows(), demo[1]) == translation_prompts(other, demo[1])


def test_the_choice_of_wording_depends_on_the_sentence_and_not_on_its_place(demo):
    wordings = ["{source} to {target}", "into {target}", "in {target} please"]
    prompts = translation_prompts(rows(), demo[1], wordings=wordings)
    backwards = translation_prompts(rows().select(range(5, -1, -1)), demo[1], wordings=wordings)
    assert prompts == backwards[::-1]
    assert translation_prompts(rows(), demo[1], request_language="target") != translation_prompts(rows(), demo[1])


def test_translations_come_in_the_order_of_the_rows_and_do_not_depend_on_it(demo):
    options = dict(max_new_tokens=12)
    outputs = translate(*demo, rows(), batch_size=4, **options)
    check_outputs(outputs)
    assert outputs["source"].tolist() == rows()["source"][:] and set(outputs["stopped"]) <= {"eos", "stop", "length"}
    backwards = translate(*demo, rows().to_pandas().iloc[::-1], batch_size=2, **options)
    assert backwards.iloc[::-1].reset_index(drop=True).equals(outputs)
    as_list = translate(*demo, list(rows()), **options)
    assert as_list.equals(outputs)


def test_a_chat_model_ends_with_the_templates_closing_token():
    tokenizer = byte_tokenizer(additional_special_tokens=["<|im_end|>"])
    tokenizer.chat_template = "{% for message in messages %}{{ '<s>' + message['content'] + '<|im_end|>' }}{% endfor %}"
    model = tiny_model("llama")
    model.resize_token_embeddings(len(tokenizer))
    closing = tokenizer.convert_tokens_to_ids("<|im_end|>")
    free = translate(model, tokenizer, [{"source": "a b", "target": "c", "source_lang": "en", "target_lang": "de"}], "chat", max_new_tokens=5, stop=())
    assert free["stopped"].item() == "length"
    with torch.no_grad():  # from now on the closing token is always the likeliest
        model.lm_head.weight.zero_()
        model.model.norm.weight.zero_()
        model.lm_head = torch.nn.Linear(32, len(tokenizer))
        model.lm_head.weight.zero_()
        model.lm_head.bias.zero_()
        model.lm_head.bias[closing] = 5
    ended = translate(model, tokenizer, [{"source": "a b", "target": "c", "source_lang": "en", "target_lang": "de"}], "chat", max_new_tokens=5, stop=())
    assert (ended["hypothesis"].item(), ended["stopped"].item()) == ("", "eos")


def test_a_sentence_without_room_is_a_named_gap(demo, caplog):
    long = {"source": "Peace. " * 100, "target": "Frieden. " * 40, "source_lang": "en", "target_lang": "de", "id": "long"}
    with caplog.at_level(logging.WARNING):
        outputs = translate(*demo, [long, *rows(2)], max_new_tokens=16)
    assert outputs["stopped"].tolist()[0] == "no room" and outputs["hypothesis"].isna().tolist() == [True, False, False]
    assert "references are longer than max_new_tokens=16" in caplog.text


def test_rows_that_cannot_be_scored_are_refused(demo):
    good = {"source": "Peace.", "target": "Frieden.", "source_lang": "en", "target_lang": "de"}
    for bad, message in (([], "at least one row"), ([{**good, "target": " "}], "row 0: 'target'"), ([good, {**good, "source": None}], "row 1: 'source'"),
                         ([{**good, "id": 3}, {**good, "id": 3}], "id '3' occurs twice"), ([{"source": "a"}], "missing: target")):
        with pytest.raises(InputError, match=message):
            translate(*demo, bad)
    with pytest.raises(UsageError, match="causal language model"):
        translate(tiny_model("bert"), byte_tokenizer(), [good])


def test_tables_of_translations_are_checked():
    good = pd.DataFrame([{"id": 1, "source_lang": "en", "target_lang": "de", "source": "a", "reference": "b", "hypothesis": None}])
    assert check_outputs(good).equals(good)
    for bad, message in ((good.head(0), "no rows"), (good.drop(columns="source"), "missing the columns source"), (good.assign(reference=None), "'reference' is 'None'"), (pd.concat([good, good]), "is there twice")):
        with pytest.raises(InputError, match=message):
            check_outputs(bad, "mine")


def test_parallel_rows_may_be_a_dataset_of_any_columns(demo):
    data = Dataset.from_list([{"source": "Peace.", "target": "Frieden.", "source_lang": "en", "target_lang": "de", "more": 1}])
    assert translate(*demo, data, max_new_tokens=3)["id"].tolist() == [0]
