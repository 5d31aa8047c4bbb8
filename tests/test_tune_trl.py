"""Our rows in TRL's SFTTrainer give what they give in ours."""
import datasets
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from alignx.data import encode_rows, load_instructions
from alignx.demo import demo_instructions, demo_model
from alignx.errors import UsageError
from alignx.tune.prompt_completion import to_prompt_completion
from alignx.tune.trainer import InstructionTrainer, TuneArguments

trl = pytest.importorskip("trl")


@pytest.fixture(scope="module")
def tokenizer():
    datasets.disable_progress_bars()
    return AutoTokenizer.from_pretrained(demo_model())


@pytest.fixture(scope="module")
def rows():
    return load_instructions(demo_instructions(), languages=["en", "zh", "ar"], split="train").shuffle(seed=1).select(range(8))


def train(kind, settings, folder, rows, tokenizer, **others):
    shared = {"output_dir": str(folder), "per_device_train_batch_size": 8, "max_steps": 2, "learning_rate": 0.1, "optim": "sgd", "logging_steps": 1, "save_strategy": "no", "report_to": "none"}
    shared |= {"activation_checkpointing": False, "disable_tqdm": True, "use_cpu": True, "dataloader_pin_memory": False}
    model = AutoModelForCausalLM.from_pretrained(demo_model(), dtype=torch.float32)
    run = kind(model=model, args=settings(**shared, **others), train_dataset=rows, processing_class=tokenizer)
    run.train()
    return run, [entry["loss"] for entry in run.state.log_history if "loss" in entry]


@pytest.mark.parametrize("template", ["alpaca", "plain"])
def test_the_same_losses_and_the_same_weights(tmp_path, rows, tokenizer, template):
    encoded = encode_rows(rows, tokenizer, template=template, train_on="completion")
    ours, losses = train(InstructionTrainer, TuneArguments, tmp_path, encoded, tokenizer)
    theirs, others = train(trl.SFTTrainer, trl.SFTConfig, tmp_path, encoded, tokenizer, bf16=False, dataset_kwargs={"skip_prepare_dataset": True})
    assert len(losses) == 2 and losses == pytest.approx(others, abs=1e-5)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(ours.model.parameters(), theirs.model.parameters(), strict=True))
    batch = theirs.data_collator([theirs.train_dataset[0]])
    assert batch["labels"][0].tolist() == list(encoded[0]["labels"]) and -100 in encoded[0]["labels"]


@pytest.mark.parametrize("template", ["alpaca", "plain", "{instruction} {input} =>\n{output}"])
def test_trl_cuts_our_texts_where_we_do(tmp_path, rows, tokenizer, template):
    theirs, _ = train(trl.SFTTrainer, trl.SFTConfig, tmp_path, to_prompt_completion(rows, template), tokenizer, bf16=False)
    encoded = encode_rows(rows, tokenizer, template=template, train_on="completion")
    mine = sorted((tuple(row["input_ids"]), tuple(row["labels"])) for row in encoded)
    assert mine == sorted((tuple(row["input_ids"]), tuple(row["labels"])) for row in theirs.train_dataset)


def test_messages_hold_question_and_answer(rows, tokenizer):
    [first, *_] = to_prompt_completion(rows, "messages")
    assert first["prompt"] == [{"role": "user", "content": f"{rows[0]['instruction']}\n{rows[0]['input']}"}]
    assert first["completion"] == [{"role": "assistant", "content": rows[0]["output"]}]
    with pytest.raises(UsageError, match="messages"):
        tokenizer.chat_template = "{% for message in messages %}<s>{{ message.content }}</s>{% endfor %}"
        try:
            to_prompt_completion(rows, "chat", tokenizer)
        finally:
            tokenizer.chat_template = None
