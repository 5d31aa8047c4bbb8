"""Does alignment carry knowledge? The study behind nbs/studies/05_knowledge.ipynb.

    alignx build alignx/assets/demo.yaml --output_dir DIR && alignx align alignx/assets/demo.yaml --output_dir DIR
    python tools/study_knowledge.py DIR [base] [aligned]        # about ten minutes for each on one core

Teaches the same facts in English to the embedded model and to its aligned version, inside the same stage 2 (the demo's
own rows, with the taught rows among them), and asks them in twelve languages. Each model's numbers are kept in DIR as
soon as they are there; when both are, nbs/studies/knowledge.json is written.
"""
import json
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
import torch
from datasets import concatenate_datasets, load_from_disk
from transformers import AutoModelForCausalLM, AutoTokenizer

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from alignx.data.encoding import encode_rows  # noqa: E402
from alignx.demo import demo_model  # noqa: E402
from alignx.evaluate.facts import copying_items, load_facts, teach_rows  # noqa: E402
from alignx.evaluate.knowledge import knowledge_items, transfer_ratio  # noqa: E402
from alignx.evaluate.tables import compare_items, tabulate  # noqa: E402
from alignx.tune.trainer import InstructionTrainer, TuneArguments  # noqa: E402

LANGUAGES = ("en", "zh", "es", "fr", "de", "ru", "ja", "ar", "bn", "sw", "th", "tr")
SETTINGS = dict(per_device_train_batch_size=32, num_train_epochs=1, learning_rate=1e-3, warmup_steps=20, distillation=0.8, seed=0)
COPIES = 6  # each wording of each fact is read this often
RATIOS = ("knowledge_novel", "knowledge_novel_copyable", "knowledge_novel_not_copyable", "knowledge_novel_respelt")


def load(path):
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)


def taught(start: Path, run: Path, facts: pd.DataFrame, tokenizer):
    "The model in `start` after stage 2 with the invented facts in it."
    lessons = encode_rows(teach_rows(facts[facts["kind"] == "novel"]), tokenizer, max_length=96, template="plain", train_on="completion")
    usual = load_from_disk(str(run / "data" / "tune"))
    lessons = lessons.select_columns(usual.column_names).cast(usual.features)
    rows = concatenate_datasets([usual, *[lessons] * COPIES]).shuffle(seed=0)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TuneArguments(output_dir=folder, train_sampling_strategy="group_by_length", save_strategy="no", report_to="none", disable_tqdm=True, logging_steps=50, dataloader_pin_memory=False, **SETTINGS)
        trainer = InstructionTrainer(load(start), arguments, train_dataset=rows, processing_class=tokenizer, base_model=load(demo_model()))
        trainer.train()
    return trainer.model.eval()


def main() -> int:
    run, wanted = Path(sys.argv[1]), sys.argv[2:] or ["base", "aligned"]
    facts, tokenizer = load_facts(LANGUAGES, split=None), AutoTokenizer.from_pretrained(demo_model())
    for name in wanted:
        start, begun = demo_model() if name == "base" else run / "aligned", time.time()
        before = knowledge_items(load(start), tokenizer, facts, ["question"], template="plain", name=name)
        after = knowledge_items(taught(start, run, facts, tokenizer), tokenizer, facts, template="plain", name=f"{name}, taught")
        pd.concat([before, after]).to_parquet(run / f"knowledge_{name}.parquet")
        print(name, f"{time.time() - begun:.0f} s", tabulate(after[after["metric"] == "knowledge_novel"]).set_index("target_lang")["value"].round(2).to_dict(), flush=True)
    paths = [run / f"knowledge_{name}.parquet" for name in ("base", "aligned")]
    if not all(path.is_file() for path in paths):
        return 0
    items = pd.concat([*map(pd.read_parquet, paths), copying_items(facts)], ignore_index=True)
    items = items[~items["metric"].str.endswith("_chance")]
    models = {name: part for name, part in items.groupby("model")}
    elsewhere = {name: part[part["target_lang"] != "en"] for name, part in models.items()}
    last = items[items["model"].str.endswith("taught")]
    together = pd.concat([transfer_ratio(last, metric, together=True) for metric in RATIOS])
    apart = pd.concat([transfer_ratio(last, metric) for metric in RATIOS])
    study = {
        "command": "python tools/study_knowledge.py DIR", "seed": SETTINGS["seed"], "settings": SETTINGS, "copies": COPIES,
        "lessons": len(teach_rows(facts[facts["kind"] == "novel"])), "table": tabulate(items), "together": together, "transfer": apart,
        "comparison": compare_items(elsewhere["base, taught"], elsewhere["aligned, taught"], by=("metric",)),
    }  # fmt: skip
    plain = {key: json.loads(value.round(4).drop(columns="layer", errors="ignore").to_json(orient="split", index=False)) if isinstance(value, pd.DataFrame) else value for key, value in study.items()}
    (ROOT / "nbs" / "studies" / "knowledge.json").write_text(json.dumps(plain) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
