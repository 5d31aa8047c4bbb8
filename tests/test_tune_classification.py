"""Labelled pairs from anywhere, classifiers from encoders and decoders, and accuracy that depends on nothing but model and pairs."""
import json
import math

import datasets
import numpy as np
import pandas as pd
import pytest
import torch
from datasets import ClassLabel, Dataset
from transformers import AutoModelForMaskedLM, AutoModelForSequenceClassification, AutoTokenizer, TrainingArguments, XLMRobertaConfig

from alignx.loading import load_tokenizer
from alignx.demo import demo_model
from alignx.errors import InputError, UsageError
from alignx.tune.classification import classification_trainer, encode_pairs, label_scores, load_classifier, load_pairs_task, transfer_items

NAMES = ["entailment", "neutral", "contradiction"]


def row(number, lang="en", label=None, **more):
    return {"premise": f"All {number} of them came.", "hypothesis": f"Somebody came, {'x ' * (number % 5)}.", "label": NAMES[number % 3] if label is None else label, "lang": lang, **more}


@pytest.fixture(scope="module")
def tokenizer():
    datasets.disable_progress_bars()
    return load_tokenizer("demo")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory, tokenizer):
    "The folder of a random XLM-R, as stage 1 leaves one."
    folder = tmp_path_factory.mktemp("encoder")
    torch.manual_seed(0)
    config = XLMRobertaConfig(vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48, max_position_embeddings=66, pad_token_id=tokenizer.pad_token_id, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    AutoModelForMaskedLM.from_config(config).save_pretrained(folder)
    return str(folder)


@pytest.fixture
def task():
    return load_pairs_task(Dataset.from_list([row(number, lang) for lang in ("en", "de", "sw") for number in range(9)]), label_names=NAMES)


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(each) + "\n" for each in rows), encoding="utf-8")


def test_the_layouts_of_xnli(tmp_path, task):
    bare = [{key: value for key, value in row(number).items() if key != "lang"} for number in range(9)]
    numbered = [each | {"label": NAMES.index(each["label"])} for each in bare]
    for lang in ("en", "de", "sw"):
        write(tmp_path / "files" / f"test.{lang}.jsonl", bare)
        (tmp_path / "folders" / lang).mkdir(parents=True)
        pd.DataFrame(numbered).to_parquet(tmp_path / "folders" / lang / "test.parquet")
    write(tmp_path / "one.jsonl", [row(number, lang, split="test") for lang in ("en", "de", "sw") for number in range(9)])
    for source in ("files", "folders", "one.jsonl"):
        found = load_pairs_task(tmp_path / source, ["de", "sw"], split="test", label_names=NAMES)
        assert sorted(zip(found["lang"], found["premise"], found["label"])) == sorted((lang, each["premise"], NAMES.index(each["label"])) for lang in ("de", "sw") for each in bare), source
    hub = Dataset.from_list([row(number, label=number % 3) for number in range(4)]).cast_column("label", ClassLabel(names=NAMES))
    assert load_pairs_task(hub).features["label"].names == NAMES and load_pairs_task(hub)["label"][:] == [0, 1, 2, 0]
    assert load_pairs_task(tmp_path / "one.jsonl").features["label"].names == sorted(NAMES)


@pytest.mark.parametrize(("change", "said"), [
    ({"premise": None}, "row 2, field 'premise'"),
    ({"hypothesis": "  "}, "field 'hypothesis'"),
    ({"label": "maybe"}, "'maybe' is none of the labels"),
    ({"label": -1}, "field 'label'"),
    ({"label": 3}, "field 'label'"),
    ({"lang": None}, "field 'lang'"),
    ({"lang": "xx-klingon"}, "xx-klingon"),
])  # fmt: skip
def test_broken_rows_are_named(tmp_path, change, said):
    write(tmp_path / "pairs.jsonl", [row(0), row(1) | change])
    with pytest.raises(InputError, match=said) as caught:
        load_pairs_task(tmp_path / "pairs.jsonl", label_names=NAMES)
    assert "pairs.jsonl" in str(caught.value)


def test_languages_and_sources_that_are_not_there(tmp_path, task):
    with pytest.raises(UsageError, match="'tr'"):
        load_pairs_task(task, ["tr"])
    with pytest.raises(UsageError, match="no such file"):
        load_pairs_task(tmp_path / "nothing.jsonl")
    write(tmp_path / "pairs.jsonl", [row(0, split="train")])
    with pytest.raises(UsageError, match="split"):
        load_pairs_task(tmp_path / "pairs.jsonl", split="test")


def test_pairs_are_joined_as_the_tokenizer_joins_them(task, tokenizer):
    encoded = encode_pairs(task, tokenizer)
    assert tokenizer.decode(encoded[3]["input_ids"]).endswith("</s>") and "\n" in tokenizer.decode(encoded[3]["input_ids"])
    assert max(map(len, encode_pairs(task, tokenizer, max_length=6)["input_ids"])) == 6
    assert all(ids[-1] == tokenizer.eos_token_id for ids in encode_pairs(task, tokenizer, max_length=6)["input_ids"])


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_scores_do_not_depend_on_batches_or_order(kind, encoder, tokenizer, task):
    model = load_classifier(encoder if kind == "encoder" else demo_model(), NAMES, tokenizer)
    scores = label_scores(model, tokenizer, task, batch_size=7)
    alone = np.stack([model.eval()(**{name: torch.tensor([each[name]]) for name in ("input_ids", "attention_mask")}).logits[0].detach().numpy() for each in encode_pairs(task, tokenizer)])
    assert np.allclose(scores, alone, atol=1e-5)
    assert np.allclose(label_scores(model, tokenizer, task.select(range(len(task) - 1, -1, -1)), batch_size=3)[::-1], scores, atol=1e-5)
    items = transfer_items(model, tokenizer, task)
    assert (items["correct"] == (scores.argmax(1) == np.array(task["label"]))).all() and list(items.columns) == ["lang", "id", "label", "predicted", "correct"]


def test_a_tie_is_a_miss(encoder, tokenizer, task):
    model = load_classifier(encoder, NAMES, tokenizer)
    for weight in model.classifier.parameters():
        weight.data.zero_()
    assert transfer_items(model, tokenizer, task)["correct"].sum() == 0


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_it_learns_and_is_saved_as_a_plain_folder_with_its_labels(tmp_path, kind, encoder, tokenizer):
    words = {"yes": "peace", "no": "war"}
    rows = load_pairs_task(Dataset.from_list([{"premise": f"{words[label]}", "hypothesis": f"number {number}", "label": label, "lang": "en"} for number in range(16) for label in words]))
    model = load_classifier(encoder if kind == "encoder" else demo_model(), ["no", "yes"], tokenizer)
    args = TrainingArguments(str(tmp_path), max_steps=60 if kind == "encoder" else 30, per_device_train_batch_size=8, learning_rate=3e-3 if kind == "encoder" else 1e-3, save_strategy="no", report_to="none", disable_tqdm=True, use_cpu=True, dataloader_pin_memory=False)
    trainer = classification_trainer(model, tokenizer, rows, args)
    trainer.train()
    assert transfer_items(model, tokenizer, rows)["correct"].mean() == 1.0
    trainer.save_model()
    plain, info = AutoModelForSequenceClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and plain.config.id2label == {0: "no", 1: "yes"}
    assert transfer_items(plain, AutoTokenizer.from_pretrained(tmp_path), rows)["correct"].mean() == 1.0
    with pytest.raises(UsageError, match="labels"):
        classification_trainer(model, tokenizer, rows.cast_column("label", ClassLabel(names=["yes", "no"])), args)


def test_the_seed_decides_the_head(encoder, tokenizer):
    heads = [load_classifier(encoder, NAMES, tokenizer, seed).classifier.out_proj.weight for seed in (0, 0, 1)]
    assert torch.equal(heads[0], heads[1]) and not torch.equal(heads[0], heads[2])


def test_models_that_cannot_be_used(tmp_path, encoder, tokenizer, task):
    model = load_classifier(encoder, NAMES, tokenizer)
    model.classifier.out_proj.weight.data[0, 0] = math.nan
    with pytest.raises(InputError, match="not numbers"):
        transfer_items(model, tokenizer, task)
    with pytest.raises(InputError, match="no labelled pair"):
        transfer_items(model, tokenizer, task.select([]))
    with pytest.raises(UsageError, match="cannot be loaded"):
        load_classifier(tmp_path, NAMES, tokenizer)
    from safetensors.torch import load_file, save_file

    broken = tmp_path / "broken"
    AutoModelForMaskedLM.from_pretrained(encoder).save_pretrained(broken)
    weights = load_file(broken / "model.safetensors")
    weights.pop("roberta.encoder.layer.1.output.dense.weight")
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match="roberta.encoder.layer.1.output.dense.weight"):
        load_classifier(broken, NAMES, tokenizer)
