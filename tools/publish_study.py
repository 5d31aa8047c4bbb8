"""Turn the tables of a study into the small files that its notebook is drawn from.

    alignx sweep recipes/studies/embedded.yaml --jobs 2
    python tools/publish_study.py runs/embedded-study nbs/studies/embedded --against base "CPT + SFT" [--keep]

With --keep, what the second folder has of arms that this study has not done stays as it is, so that seeds or questions can be added on another machine.
Writes to the second folder, atomically:

    arms.parquet          mean of each arm, model, test set and metric, with an interval over seeds and sentences
    differences.parquet   every arm against those that --against names, paired
    by_language.parquet   the same for each language, of the metrics that matter most
    layers.parquet        mean over pairs of languages at every layer, for each arm, seed and model
    languages.parquet     each language at the arm's layer, for each arm, seed and model
    runs.parquet          settings, seconds, memory, device, commit and environment of each run
    logs.parquet          stage 1's log
"""
import argparse
import json
import os
import sys
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from alignx.evaluate.studies import arm_table, compare_arms, compare_languages  # noqa: E402
from alignx.sweep_results import read_study, write_table  # noqa: E402

IDENTITY = ["arm", "seed", "question", "measure", "model"]
LAYERED = ("retrieval_top1", "retrieval_centered", "mexa", "margin", "mean_cosine")
TOLD_APART = ("retrieval_top1", "loss", "loss_pivot", "chrf_from_pivot", "chrf_to_pivot", "knowledge_real")
PLAIN = ("perplexity", "bits_per_byte", "chrf", "bleu", "off_target", "knowledge_novel_transfer", "knowledge_novel_not_copyable_transfer")


def layers_table(results: pd.DataFrame) -> pd.DataFrame:
    "Means over pairs of languages at every layer."
    rows = results[results["metric"].isin(LAYERED) & results["layer"].notna() & results["value"].notna()]
    return rows.groupby([*IDENTITY, "metric", "layer"], sort=False)["value"].mean().reset_index().assign(source_lang="all", target_lang="all")


def languages_table(results: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    "Each pair at the layer that its run has aligned, and what has no layer."
    rows = results.merge(runs[["arm", "seed", "layer"]].rename(columns={"layer": "aligned_layer"}), on=["arm", "seed"])
    rows = rows[(rows["metric"].isin(LAYERED) & (rows["layer"] == rows["aligned_layer"])) | rows["metric"].isin(PLAIN)]
    return rows[[*IDENTITY, "source_lang", "target_lang", "metric", "value", "low", "high", "n"]].dropna(subset="value")


def settings_apart(one: str, other: str) -> int:
    "In how many settings two recipes differ."
    told = [json.loads(recipe) for recipe in (one, other)]
    flat = [{f"{part}.{name}": value for part, values in recipe.items() if isinstance(values, dict) for name, value in values.items()} for recipe in told]
    return sum(flat[0].get(name) != flat[1].get(name) for name in {*flat[0], *flat[1]})


def comparable(units: pd.DataFrame, runs: pd.DataFrame, arm: str) -> pd.DataFrame:
    "What an arm is compared with: arms, and cases of questions that train the same stages; a run of a question with the runs of that question, and with those of others that differ from it in one setting."
    recipes = runs.drop_duplicates("arm").set_index("arm")["recipe"]
    stages = recipes.map(lambda recipe: json.loads(recipe).get("stages"))
    trained = [name for name, trains in stages.items() if trains == stages[arm]]
    asked = units.loc[units["arm"] == arm, "question"].unique()
    if "" in asked:
        return units[units["question"].isin(asked) | units["arm"].isin(trained)]
    near = [name for name in trained if settings_apart(recipes[name], recipes[arm]) == 1]
    return units[units["question"].isin(asked) | (units["arm"].isin(near) & (units["question"] != ""))]


def without_paths(recipe: str) -> str:
    "A recipe without the folders of the machine that it ran on."
    values = json.loads(recipe)
    named = lambda value: Path(value).name if isinstance(value, str) and "/" in value and Path(value).is_absolute() else value
    values["model"], values["output_dir"] = named(values["model"]), named(values["output_dir"])
    values["data"] = {name: [named(one) for one in value] if isinstance(value, list) else named(value) for name, value in values["data"].items()}
    return json.dumps(values)


def small(table: pd.DataFrame) -> pd.DataFrame:
    "Numbers in 32 bits."
    return table.astype({name: "float32" for name in table.select_dtypes("float64")})


def with_kept(table: pd.DataFrame, file: Path, done: set) -> pd.DataFrame:
    "A table, and below it the rows of a file about arms that are not done here."
    if not file.is_file():
        return table
    before = pd.read_parquet(file)
    return pd.concat([table[table["arm"].isin(done)], before[~before["arm"].isin(done)]], ignore_index=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path, help="output_dir of a study")
    parser.add_argument("out", type=Path, help="folder for the small files")
    parser.add_argument("--against", nargs="+", default=[], metavar="ARM", help="arms that the others are compared with")
    parser.add_argument("--keep", action="store_true", help="keep what OUT has of arms that are not done in this study")
    asked = parser.parse_args()
    tables = read_study(asked.study)
    units, results, runs = tables["units"], tables["results"], tables["runs"]
    done = set(runs.loc[runs["state"] == "done", "arm"])
    for arm in asked.against:
        if arm not in done:
            parser.error(f"--against {arm!r}: no run of it is done in {asked.study}; there are {', '.join(sorted(done))}")
    runs["recipe"] = [without_paths(text) for text in runs["recipe"]]
    made = {"arms": arm_table(units), "layers": layers_table(results), "languages": languages_table(results, runs), "runs": runs}
    if asked.against:
        compared = {arm: comparable(units, runs, arm) for arm in asked.against}
        made["differences"] = pd.concat([compare_arms(rows, arm, resamples=2000) for arm, rows in compared.items()], ignore_index=True)
        made["by_language"] = pd.concat([compare_languages(rows[rows["metric"].isin(TOLD_APART)], arm, resamples=2000) for arm, rows in compared.items()], ignore_index=True)
    if (asked.study / "logs.parquet").is_file():
        made["logs"] = pd.read_parquet(asked.study / "logs.parquet")
    asked.out.mkdir(parents=True, exist_ok=True)
    for name, table in made.items():
        table = with_kept(table, asked.out / f"{name}.parquet", done) if asked.keep else table
        write_table(small(table), asked.out / f"{name}.parquet")
        print(f"{name:12} {len(table):7,} rows, {os.path.getsize(asked.out / f'{name}.parquet') / 1024:,.0f} KB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
