import math

import pytest
import torch
from datasets import Dataset

from align_batches import bare, collate, row, tiny
from alignx.data import encode_rows
from alignx.demo import demo_model
from alignx.errors import InputError, UsageError
from alignx.tune.trainer import InstructionTrainer, TuneArguments, check_completions
from transformers import AutoModelForCausalLM, AutoTokenizer


def completion(seed, prompt=4, answer=3):
    one = row(prompt, answer, seed=seed)
    return one | {"labels": [-100] * (prompt + 4) + one["labels"][prompt + 4 :]}


DATA = [completion(i, prompt=2 + i % 3, answer=1 + i % 4) for i in range(8)]


def trainer(folder, data=DATA, model=None, side="right", base=None, **settings):
    defaults = {"per_device_train_batch_size": 4, "max_steps": 4, "learning_rate": 1e-2, "logging_steps": 1, "save_strategy": "no"}
    args = TuneArguments(output_dir=str(folder), report_to="none", disable_tqdm=True, use_cpu=True, dataloader_pin_memory=False, seed=3, **{**defaults, **settings})
    return InstructionTrainer(model or tiny(), args, lambda some: collate(some, side), Dataset.from_list(data), base_model=base)


@pytest.mark.parametrize("name", ["llama", "bloom"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_four_micro_batches_of_one_row_are_one_batch_of_four(tmp_path, name, side):
    found = []
    for size, steps in ((4, 1), (1, 4)):
        run = trainer(tmp_path, DATA[:4], tiny(name), side, per_device_train_batch_size=size, gradient_accumulation_steps=steps, max_steps=2, optim="sgd", max_grad_norm=0)
        run.train()
        found.append((run.model.state_dict(), run.state.log_history[0]["loss"]))
    (one, loss), (other, other_loss) = found
    assert all(torch.allclose(one[key], other[key], atol=1e-6) for key in one) and math.isclose(loss, other_loss, rel_tol=1e-4)


def test_only_completions_are_learned(tmp_path):
    run = trainer(tmp_path, DATA[:4], max_steps=1)
    batch, lm = collate(DATA[:4]), tiny()
    picked = lm(batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1].log_softmax(-1).gather(2, batch["input_ids"][:, 1:, None])[..., 0]
    run.train()
    assert math.isclose(run.state.log_history[0]["loss"], -picked[batch["labels"][:, 1:] != -100].mean().item(), rel_tol=1e-4)


def test_resumed_is_uninterrupted_and_the_folder_plain(tmp_path):
    settings = {"max_steps": 6, "save_strategy": "steps", "save_steps": 3, "per_device_train_batch_size": 2}
    whole = trainer(tmp_path, **settings)
    whole.train()
    resumed = trainer(tmp_path, model=tiny(seed=5), **settings)
    resumed.train(resume_from_checkpoint=f"{tmp_path}/checkpoint-3")
    assert all(torch.equal(a, b) for a, b in zip(whole.model.state_dict().values(), resumed.model.state_dict().values(), strict=True))
    plain, info = AutoModelForCausalLM.from_pretrained(f"{tmp_path}/checkpoint-6", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and plain.config.use_cache and plain.dtype == torch.float32


def test_a_row_without_anything_to_learn_is_named(tmp_path):
    data = [*DATA, completion(1) | {"labels": [-100] * 11}]
    with pytest.raises(InputError, match="train_dataset, row 8: no token to learn"):
        trainer(tmp_path, data)
    data[8]["labels"][0] = 1
    with pytest.raises(InputError, match="row 8"):
        check_completions(Dataset.from_list(data))
    with pytest.raises(InputError, match="row 8"):
        list(check_completions(Dataset.from_list(data).to_iterable_dataset()))
    long = Dataset.from_list([{"labels": [-100, 3]}] * 1200 + [{"labels": [-100]}])
    with pytest.raises(InputError, match="row 1200"):
        check_completions(long)
    with pytest.raises(InputError, match="row 0"):
        check_completions(long.select([1200, 3]))


def test_a_loss_that_is_not_a_number_stops_the_run(tmp_path):
    lm = tiny()
    lm.get_input_embeddings().weight.data[1] = math.nan
    with pytest.raises(InputError, match="step 1"):
        trainer(tmp_path, model=lm).train()


def test_the_base_share_is_mixed_in_when_training_has_ended(tmp_path):
    plain, mixed = trainer(tmp_path / "plain"), trainer(tmp_path / "mixed", base=tiny(), base_share=0.25)
    plain.train(), mixed.train()
    for a, b, start in zip(plain.model.parameters(), mixed.model.parameters(), tiny().parameters(), strict=True):
        assert torch.allclose(b, 0.75 * a + 0.25 * start, atol=1e-6)
    assert any(not torch.allclose(a, b) for a, b in zip(plain.model.parameters(), mixed.model.parameters()))
    with pytest.raises(UsageError, match="base_model"):
        trainer(tmp_path / "without", base_share=0.25)


def test_distillation_changes_what_plain_rows_teach(tmp_path):
    replay = [*DATA[:4], *(bare(4, seed=i) for i in range(4))]
    text, held = trainer(tmp_path / "text", replay), trainer(tmp_path / "held", replay, base=tiny(), distillation=1.0)
    text.train(), held.train()
    sentence = collate([bare(4, seed=0)])

    def drift(model):
        with torch.no_grad():
            now, then = (each.eval()(sentence["input_ids"]).logits.log_softmax(-1) for each in (model, tiny()))
        return torch.nn.functional.kl_div(now, then, log_target=True, reduction="sum")

    assert drift(held.model) < drift(text.model)
    with pytest.raises(UsageError, match="base_model"):
        trainer(tmp_path / "without", distillation=0.5)
    with pytest.raises(UsageError, match="between 0 and 1"):
        trainer(tmp_path / "much", base=tiny(), distillation=1.5)


def test_logits_are_whole_only_where_predictions_are_asked_for(tmp_path):
    run = trainer(tmp_path, DATA[:4], logit_chunk=2, per_device_eval_batch_size=4, max_steps=1)
    seen = []
    run.model.get_output_embeddings().register_forward_hook(lambda module, args, out: seen.append(out.shape[-2]))
    run.train()
    loss = run.evaluate(Dataset.from_list(DATA[:4]))["eval_loss"]
    assert max(seen) == 2, "training and evaluation hold two rows of logits at a time"
    predicted = run.predict(Dataset.from_list(DATA[:4]))
    batch = collate(DATA[:4])
    with torch.no_grad():
        logits = run.model.eval()(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    assert torch.allclose(torch.tensor(predicted.predictions), logits, atol=1e-5) and math.isclose(predicted.metrics["test_loss"], loss, rel_tol=1e-5)
    with pytest.raises(UsageError, match="logit_chunk -1"):
        trainer(tmp_path, logit_chunk=-1)


def test_a_chat_template_without_generation_marks_still_learns_the_answer_alone(tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(demo_model())
    tokenizer.chat_template = "{% for message in messages %}<s>{{ message.role }}\n{{ message.content }}</s>{% endfor %}"
    asked = {"instruction": "What is it?", "input": "a cat", "output": "It is a cat.", "lang": "en", "source_lang": None, "target_lang": None}
    encoded = encode_rows(Dataset.from_list([asked] * 4), tokenizer, template="chat", train_on="completion")
    ids, labels = encoded[0]["input_ids"], encoded[0]["labels"]
    learned = tokenizer.decode([token for token, label in zip(ids, labels) if label != -100])
    assert learned.strip() == "It is a cat.</s>" and tokenizer.decode(ids).count("<s>") == 2
    args = TuneArguments(output_dir=str(tmp_path), report_to="none", disable_tqdm=True, use_cpu=True, dataloader_pin_memory=False, max_steps=12, learning_rate=1e-3, logging_steps=1, save_strategy="no", per_device_train_batch_size=4)
    run = InstructionTrainer(AutoModelForCausalLM.from_pretrained(demo_model(), dtype=torch.float32), args, train_dataset=encoded, processing_class=tokenizer)
    run.train()
    prompt = ids[: next(place for place, label in enumerate(labels) if label != -100)]
    written = run.model.generate(torch.tensor([prompt]), max_new_tokens=12, do_sample=False)[0][len(prompt) :]
    assert tokenizer.decode(written).strip().startswith("It is a cat.</s>")


def test_adapters_start_from_the_seed_whatever_was_drawn_before(tmp_path):
    first = trainer(tmp_path, lora_rank=2)
    model = tiny()
    torch.rand(11)
    second = trainer(tmp_path, model=model, lora_rank=2)
    assert all(torch.equal(a, b) for a, b in zip(first.model.parameters(), second.model.parameters(), strict=True))
