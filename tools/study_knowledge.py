"""Does alignment carry knowledge? The study behind nbs/studies/05_knowledge.ipynb.

    alignx build alignx/assets/demo.yaml --output_dir DIR && alignx align alignx/assets/demo.yaml --output_dir DIR
    python tools/study_knowledge.py DIR        # about forty minutes on one core

Teaches the same facts in English to the embedded model and to its aligned version, inside the same stage 2 (the demo's
own rows, with the taught rows among them, each read `COPIES` times), and asks them in twelve languages. What each model
answers is kept in DIR, so that the command goes on where it was stopped; the summary is nbs/studies/knowledge.json.
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
from alignx.evaluate.tables import compare_items, correct_p_values, tabulate  # noqa: E402
from alignx.tune.trainer import InstructionTrainer, TuneArguments  # noqa: E402

LANGUAGES = ("en", "zh", "es", "fr", "de", "ru", "ja", "ar", "bn", "sw", "th", "tr")
SETTINGS = dict(per_device_train_batch_size=32, num_train_epochs=1, learning_rate=1e-3, warmup_steps=20, distillation=0.8, seed=0)
COPIES = (6, 16)  # how often each wording of each fact is read: too seldom to be learned whole in English, and often enough
RATIOS = ("knowledge_novel", "knowledge_novel_copyable", "knowledge_novel_not_copyable", "knowledge_novel_respelt")


def load(path):
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)


def taught(start: Path, run: Path, facts: pd.DataFrame, tokenizer, copies: int):
    "The model in `start` after stage 2 with the invented facts in it."
    lessons = encode_rows(teach_rows(facts[facts["kind"] == "novel"]), tokenizer, max_length=96, template="plain", train_on="completion")
    usual = load_from_disk(str(run / "data" / "tune"))
    lessons = lessons.select_columns(usual.column_names).cast(usual.features)
    rows = concatenate_datasets([usual, *[lessons] * copies]).shuffle(seed=0)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TuneArguments(output_dir=folder, train_sampling_strategy="group_by_length", save_strategy="no", report_to="none", disable_tqdm=True, logging_steps=50, dataloader_pin_memory=False, **SETTINGS)
        trainer = InstructionTrainer(load(start), arguments, train_dataset=rows, processing_class=tokenizer, base_model=load(demo_model()))
        trainer.train()
    return trainer.model.eval()


def answers(name: str, copies: int, run: Path, facts: pd.DataFrame, tokenizer) -> pd.DataFrame:
    "Items of a model before and after it was taught, from DIR if they are there."
    path = run / f"knowledge_{name}_{copies}.parquet"
    if not path.is_file():
        start, begun = demo_model() if name == "base" else run / "aligned", time.time()
        before = knowledge_items(load(start), tokenizer, facts, ["question"], template="plain", name=name)
        after = knowledge_items(taught(start, run, facts, tokenizer, copies), tokenizer, facts, template="plain", name=f"{name}, taught")
        pd.concat([before, after]).to_parquet(path)
        print(name, copies, f"{time.time() - begun:.0f} s", tabulate(after[after["metric"] == "knowledge_novel"]).set_index("target_lang")["value"].round(2).to_dict(), flush=True)
    items = pd.read_parquet(path)
    return items[~items["metric"].str.endswith("_chance")]


def summary(items: pd.DataFrame) -> dict[str, pd.DataFrame]:
    "Transfer of the taught models, all languages together, and the difference between the two, corrected across `RATIOS`."
    last = items[items["model"].str.endswith("taught")]
    elsewhere = last[(last["target_lang"] != "en") & last["metric"].isin(RATIOS)]
    both = [elsewhere[elsewhere["model"] == f"{name}, taught"] for name in ("base", "aligned")]
    comparison = compare_items(*both, by=("metric",), correction="none")
    english = tabulate(last[(last["target_lang"] == "en") & (last["metric"] == "knowledge_novel")])
    together = pd.concat([english, *(transfer_ratio(last, metric, together=True) for metric in RATIOS)])
    return {"together": together, "comparison": comparison.assign(p_corrected=correct_p_values(comparison["p_value"]))}


def main() -> int:
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    run, tokenizer, facts = Path(sys.argv[1]), AutoTokenizer.from_pretrained(demo_model()), load_facts(LANGUAGES, split=None)
    items = {copies: pd.concat([answers(name, copies, run, facts, tokenizer) for name in ("base", "aligned")]) for copies in COPIES}
    doses = {copies: summary(part) for copies, part in items.items()}
    study = {"command": "python tools/study_knowledge.py DIR", "settings": SETTINGS, "copies": COPIES, "table": tabulate(pd.concat([items[COPIES[-1]], copying_items(facts)]))}
    for name in ("together", "comparison"):
        study[name] = pd.concat([parts[name].assign(copies=copies) for copies, parts in doses.items()])
    plain = {key: json.loads(value.round(4).drop(columns="layer", errors="ignore").to_json(orient="split", index=False)) if isinstance(value, pd.DataFrame) else value for key, value in study.items()}
    (ROOT / "nbs" / "studies" / "knowledge.json").write_text(json.dumps(plain) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
