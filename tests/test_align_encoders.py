"""Masked language models: rows, gaps, losses, training, folders."""
import json
from functools import lru_cache

import pytest
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoModelForMaskedLM, BertConfig, BertForMaskedLM, BertTokenizerFast, PreTrainedTokenizerFast, T5Config, XLMRobertaConfig, XLMRobertaForMaskedLM

from alignx.align.language_model import capture_states, is_masked_lm, states_up_to
from alignx.align.masked_language_model import mask_batch, mask_generator
from alignx.align.model import AlignmentConfig, AlignmentModel, load_alignment
from alignx.align.pooling import alone_batch
from alignx.align.trainer import AlignmentArguments, AlignmentTrainer
from alignx.building import build
from alignx.loading import load_model
from alignx.data.encoding import AlignmentCollator, encode_rows
from alignx.data.instructions import get_template, translation_instructions
from alignx.data.parallel import load_parallel
from alignx.demo import demo_corpus
from alignx.errors import UsageError
from alignx.pipeline import align, evaluate
from alignx.recipe import make_recipe
from alignx.results import explore
from alignx.run_folder import Run
from alignx.tune.trainer import InstructionTrainer, TuneArguments


@lru_cache
def pairs():
    return load_parallel(demo_corpus(), languages=["en", "de", "ru"], split="train").shuffle(seed=0).select(range(300))


@lru_cache
def tokenizer(kind: str):
    "A small WordPiece or sentencepiece-like tokenizer, trained on real text."
    texts = [*pairs()["source"], *pairs()["target"]]
    if kind == "bert":
        pieces = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        pieces.normalizer, pieces.pre_tokenizer = normalizers.BertNormalizer(lowercase=False), pre_tokenizers.BertPreTokenizer()
        pieces.train_from_iterator(texts, trainers.WordPieceTrainer(vocab_size=600, show_progress=False, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]))
        pieces.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
        return BertTokenizerFast(tokenizer_object=pieces)
    pieces = Tokenizer(models.Unigram())
    pieces.pre_tokenizer = pre_tokenizers.Metaspace()
    pieces.train_from_iterator(texts, trainers.UnigramTrainer(vocab_size=600, show_progress=False, unk_token="<unk>", special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"]))
    pieces.post_processor = processors.TemplateProcessing(single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    names = {"bos_token": "<s>", "cls_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "sep_token": "</s>", "unk_token": "<unk>", "mask_token": "<mask>"}
    return PreTrainedTokenizerFast(tokenizer_object=pieces, **names)


def encoder(kind: str, dropout: float = 0.0):
    size = {"vocab_size": len(tokenizer(kind)), "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48, "max_position_embeddings": 260, "hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout, "pad_token_id": tokenizer(kind).pad_token_id}
    torch.manual_seed(0)
    return BertForMaskedLM(BertConfig(**size)) if kind == "bert" else XLMRobertaForMaskedLM(XLMRobertaConfig(**size, bos_token_id=0, eos_token_id=2))


@lru_cache
def encoded(kind: str):
    return encode_rows(translation_instructions(pairs()), tokenizer(kind), template="pair")


def batch(kind: str, count: int = 6, side: str = "right") -> dict:
    return AlignmentCollator(tokenizer(kind), side)(list(encoded(kind).select(range(count))))


def masked(kind: str, count: int = 6, side: str = "right", *place) -> dict:
    return mask_batch(batch(kind, count, side), tokenizer(kind), generator=mask_generator(*(place or (0,))))


def trainer(kind, folder, data=None, dropout=0.0, **settings):
    defaults = {"layer": 2, "language_matching_size": 8, "per_device_train_batch_size": 4, "max_steps": 4, "learning_rate": 1e-2, "logging_steps": 1, "save_strategy": "no"}
    args = AlignmentArguments(output_dir=str(folder), report_to="none", disable_tqdm=True, use_cpu=True, dataloader_pin_memory=False, seed=3, **{**defaults, **settings})
    return AlignmentTrainer(encoder(kind, dropout), args, train_dataset=data or encoded(kind).select(range(16)), eval_dataset=encoded(kind).select(range(16, 24)), processing_class=tokenizer(kind))


KINDS = ("bert", "xlmr")


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_joined_as_the_tokenizer_joins_two_texts(kind):
    tok = tokenizer(kind)
    for row, pair in zip(encoded(kind), pairs()):
        assert row["input_ids"] == tok(pair["source"].strip(), pair["target"].strip())["input_ids"]
        for number, side in ((1, "source"), (2, "target")):
            inside = [token for token, mark in zip(row["input_ids"], row["spans"]) if mark == number]
            assert inside == tok(pair[side].strip(), add_special_tokens=False)["input_ids"]


def test_tokenizers_that_cannot_join_are_refused():
    with pytest.raises(UsageError, match="between two texts"):
        get_template("pair", PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))))
    with pytest.raises(UsageError, match="pair_template"):
        get_template("pair")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_side_alone_is_what_the_tokenizer_makes_of_it(kind, side):
    tok, rows = tokenizer(kind), batch(kind, side=side)
    ids, attended, sentence = alone_batch(rows["input_ids"], rows["attention_mask"], rows["spans"], framed=True)
    texts = [text.strip() for name in ("source", "target") for text in pairs()[:6][name]]
    for row, text in enumerate(texts):
        assert ids[row][attended[row].bool()].tolist() == tok(text)["input_ids"]
        assert ids[row][sentence[row]].tolist() == tok(text, add_special_tokens=False)["input_ids"]


def test_gaps_follow_the_recipe():
    rows, tok = batch("bert", 300), tokenizer("bert")
    shown = mask_batch(rows, tok, 0.15, mask_generator(0))
    chosen, real = shown["labels"] != -100, rows["attention_mask"].bool() & ~torch.isin(rows["input_ids"], torch.tensor(tok.all_special_ids))
    assert not (chosen & ~real).any() and (chosen.sum() / real.sum()).item() == pytest.approx(0.15, abs=0.015)
    assert torch.equal(shown["masked_ids"][~chosen], rows["input_ids"][~chosen]) and torch.equal(shown["labels"][chosen], rows["input_ids"][chosen])
    hidden, same = (shown["masked_ids"][chosen] == tok.mask_token_id).float().mean(), (shown["masked_ids"][chosen] == rows["input_ids"][chosen]).float().mean()
    assert hidden.item() == pytest.approx(0.8, abs=0.05) and same.item() == pytest.approx(0.1, abs=0.04)
    with pytest.raises(UsageError, match="mask token"):
        mask_batch(rows, PreTrainedTokenizerFast(tokenizer_object=tok.backend_tokenizer))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("chunk", [0, 3])
def test_loss_and_gradients_are_those_of_the_formula(kind, chunk):
    lm, rows = encoder(kind).double(), masked(kind)
    model = AlignmentModel(lm, AlignmentConfig(layer=2, objectives="lm", logit_chunk=chunk)).eval()
    loss = model(**rows).loss
    logits = lm(rows["masked_ids"], attention_mask=rows["attention_mask"]).logits
    expected = F.cross_entropy(logits.flatten(0, 1), rows["labels"].flatten(), ignore_index=-100)
    found, wanted = (torch.autograd.grad(each, list(lm.parameters()), allow_unused=True) for each in (loss, expected))
    assert torch.isclose(loss, expected, rtol=1e-6)
    assert all(torch.allclose(a, b, atol=1e-7) for a, b in zip(found, wanted) if a is not None and b is not None)
    assert [a is None for a in found] == [b is None for b in wanted]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layer", range(4))
def test_states_are_those_that_transformers_reports(kind, layer):
    lm, rows = encoder(kind).eval(), batch(kind, side="left")
    with torch.no_grad():
        reported = lm(rows["input_ids"], attention_mask=rows["attention_mask"], output_hidden_states=True).hidden_states
        with capture_states(lm, layer) as states:
            lm.base_model(input_ids=rows["input_ids"], attention_mask=rows["attention_mask"])
        assert torch.equal(states["layer"], reported[layer]) and torch.equal(states["last"], reported[-1])
        assert torch.equal(states_up_to(lm, layer, rows["input_ids"], rows["attention_mask"]), reported[layer])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pooling", ["row", "alone"])
def test_padding_side_does_not_matter(kind, pooling):
    torch.manual_seed(0)
    model, right, left = AlignmentModel(encoder(kind), AlignmentConfig(layer=2, pooling=pooling)).eval(), masked(kind), batch(kind, side="left")
    real = [rows["attention_mask"].bool() for rows in (right, left)]
    left = left | {name: torch.full_like(right[name], -100).masked_scatter(real[1], right[name][real[0]]) for name in ("labels", "masked_ids")}
    left["masked_ids"][~real[1]] = tokenizer(kind).pad_token_id
    with torch.no_grad():
        found = [model(**rows) for rows in (right, left)]
        pairs = [model(**rows, embed_only=True) for rows in (right, left)]
    assert all(torch.allclose(found[0][name], found[1][name], atol=1e-5) for name in found[0])
    assert torch.allclose(pairs[0].source, pairs[1].source, atol=1e-5) and torch.equal(pairs[0].keys, pairs[1].keys)


@pytest.mark.parametrize("kind", KINDS)
def test_micro_batches_are_one_batch(tmp_path, kind):
    "The heads of BERT and XLM-R ignore the number of tokens of the step that Trainer counts; ours are scaled by it."
    found = []
    for size, steps in ((4, 1), (1, 4)):
        run = trainer(kind, tmp_path, objectives="lm,contrastive", pooling="alone", per_device_train_batch_size=size, gradient_accumulation_steps=steps, max_steps=1, optim="sgd", max_grad_norm=0, train_sampling_strategy="sequential")
        mask = run._mask
        whole = mask_batch(AlignmentCollator(tokenizer(kind))(list(encoded(kind).select(range(4)))), tokenizer(kind), generator=mask_generator(0))

        def same(rows, *place, whole=whole):  # the same gaps, whatever the micro-batch
            place = [whole["input_ids"][:, : rows["input_ids"].shape[1]].tolist().index(ids) for ids in rows["input_ids"].tolist()]
            return rows | {name: whole[name][place, : rows["input_ids"].shape[1]] for name in ("masked_ids", "labels")}

        run._mask = same
        run.train()
        found.append(({name: weight.clone() for name, weight in run.model.state_dict().items()}, run.state.log_history[0]))
    (one, log), (other, other_log) = found
    assert all(torch.allclose(one[name], other[name], atol=1e-6) for name in one)
    assert log["lm_loss"] == pytest.approx(other_log["lm_loss"], rel=1e-5) and log["contrastive_loss"] == pytest.approx(other_log["contrastive_loss"], rel=1e-5)


@pytest.mark.parametrize("kind, pooling", [("bert", "row"), ("xlmr", "alone")])
def test_a_resumed_run_is_the_uninterrupted_one_and_leaves_a_plain_folder(tmp_path, kind, pooling):
    settings = {"dropout": 0.2, "pooling": pooling, "gradient_accumulation_steps": 2, "save_strategy": "steps", "save_steps": 2, "eval_strategy": "steps", "eval_steps": 2}
    whole = trainer(kind, tmp_path, **settings)
    whole.train()
    resumed = trainer(kind, tmp_path, **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert all(torch.equal(a, b) for a, b in zip(whole.model.state_dict().values(), resumed.model.state_dict().values(), strict=True))
    evaluations = [entry["eval_lm_loss"] for entry in whole.state.log_history if "eval_lm_loss" in entry]
    assert whole.evaluate()["eval_lm_loss"] == evaluations[-1], "the same gaps in every evaluation"
    whole.save_model(str(tmp_path / "plain"))
    plain, info = AutoModelForMaskedLM.from_pretrained(tmp_path / "plain", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and is_masked_lm(load_alignment(tmp_path / "plain").lm)
    assert type(load_model(str(tmp_path / "plain"))[0]) is type(plain)


def test_what_cannot_be():
    with pytest.raises(UsageError, match="mask_batch"):
        AlignmentModel(encoder("bert"), AlignmentConfig(layer=2))(**batch("bert"))
    with pytest.raises(UsageError, match="distillation"):
        AlignmentModel(encoder("bert"), AlignmentConfig(layer=2, distillation=0.5))
    with pytest.raises(UsageError, match="mixes rows|cannot read packed"):
        AlignmentModel(encoder("bert"), AlignmentConfig(layer=2, packing=True))


def test_stage_two_and_encoder_decoders_are_refused(tmp_path):
    with pytest.raises(UsageError, match="cannot write an answer"):
        InstructionTrainer(encoder("bert"), TuneArguments(output_dir=str(tmp_path), report_to="none", use_cpu=True), train_dataset=encoded("bert"), processing_class=tokenizer("bert"))
    T5Config().save_pretrained(tmp_path / "t5")
    tokenizer("bert").save_pretrained(tmp_path / "t5")
    with pytest.raises(UsageError, match="encoder with a decoder"):
        load_model(str(tmp_path / "t5"))


def test_the_whole_first_stage_from_a_recipe(tmp_path):
    folder = tmp_path / "bert"
    encoder("bert").save_pretrained(folder)
    tokenizer("bert").save_pretrained(folder)
    values = {
        "model": str(folder), "languages": ["en", "de", "ru"], "stages": ["align"], "output_dir": str(tmp_path / "run"),
        "data": {"template": "pair", "pairs": 60, "instructions": None, "max_length": 96}, "evaluate": {"tuples": 20, "explorer_tuples": 5},
        "align": {"layer": 2, "pooling": "alone", "max_steps": 2, "per_device_train_batch_size": 8, "save_strategy": "no", "report_to": "none", "use_cpu": True},
    }  # fmt: skip
    run = Run(make_recipe(values), lambda line: None)
    for step in (build, align, evaluate, explore):
        step(run)
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert set(metrics["models"]) == {"base", "aligned"} and metrics["models"]["aligned"]["perplexity"] == {"en": None, "de": None, "ru": None}
    assert (tmp_path / "run" / "report.html").stat().st_size > 10_000
