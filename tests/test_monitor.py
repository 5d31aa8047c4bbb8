"""The training monitor: numbers sorted into panels, runs that end in every way, and what a saved notebook keeps."""
import logging
import math
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
import torch
from datasets import Dataset
from nbclient import NotebookClient

from align_batches import collate, rows, tiny
from alignx.align.trainer import AlignmentArguments, AlignmentTrainer
from alignx.errors import InputError, UsageError
from alignx.explore import TrainingMonitor
from alignx.explore.monitor import Progress
from alignx.explore.training_panels import PLACES, log_readings, panel_html, training_panels
from transformers import Trainer, TrainerCallback, TrainingArguments


def trainer(folder, monitor, callbacks=(), **settings):
    defaults = {"layer": 2, "language_matching_size": 8, "per_device_train_batch_size": 4, "max_steps": 12, "learning_rate": 1e-2, "logging_steps": 1, "save_strategy": "no", "diagnostics_steps": 2, "eval_strategy": "steps", "eval_steps": 4}
    args = AlignmentArguments(output_dir=str(folder), report_to="none", disable_tqdm=True, use_cpu=True, dataloader_pin_memory=False, seed=3, **{**defaults, **settings})
    torch.manual_seed(0)
    return AlignmentTrainer(tiny(), args, collate, Dataset.from_list(rows(16)), Dataset.from_list(rows(8)), measures=lambda model: {"de_perplexity": 3.0, "sw_perplexity": 9.0}, callbacks=[monitor, *callbacks])


def series(lines):
    found = {}
    for each in log_readings(lines):
        found.setdefault((each.split, each.name), []).append((each.step, each.value))
    return found


# ---- a real run -----------------------------------------------------------------------------------------------------
def test_everything_that_a_run_logs_is_in_table_and_panels(tmp_path):
    monitor = TrainingMonitor()
    run = trainer(tmp_path, monitor)
    run.train()
    table, history = monitor.table(), run.state.log_history
    for line in history:
        for name, value in line.items():
            if name in ("step", "epoch"):
                continue
            row = table[(table["step"] == line["step"]) & (table["name"] == name.removeprefix("eval_")) & ((table["split"] == "eval") == name.startswith("eval_"))]
            assert row["value"].tolist() == [pytest.approx(value, nan_ok=True)] or (name == "loss" and len(row) == 1), name
    panels = training_panels(series(history))
    assert set(panels) == {title for title, *_ in PLACES.values()} | {"perplexity, held out"}
    assert set(panels["gradient cosine"]) == {"LM, contrastive", "LM, matching", "contrastive, matching"} and set(panels["loss and its parts"]) == {"loss", "LM", "contrastive", "matching"}
    assert set(panels["retrieval in the batch"]) == {"trained", "pooled", "alone"}
    assert [len(panels["contrastive loss"]["contrastive"].points[split]) for split in ("train", "eval")] == [12, 3]
    assert monitor.progress.doing == "done" and monitor.progress.step == monitor.progress.total == 12


def test_the_parts_that_are_shown_add_up_to_the_loss(tmp_path):
    monitor = TrainingMonitor()
    trainer(tmp_path, monitor).train()
    parts = training_panels(series(monitor.lines))["loss and its parts"]
    for number, (step, loss) in enumerate(parts["loss"].points["train"]):
        assert loss == pytest.approx(sum(parts[name].points["train"][number][1] for name in ("LM", "contrastive", "matching")), rel=1e-3)


def test_names_of_the_trainer_are_known_to_the_panels(tmp_path):
    monitor = TrainingMonitor()
    trainer(tmp_path, monitor).train()
    logged = {name for split, name in series(monitor.lines) if split == "train"}
    assert set(PLACES) <= logged, "a panel waits for a number that nobody logs any more"


def test_a_resumed_run_shows_the_whole_log(tmp_path):
    settings = {"save_strategy": "steps", "save_steps": 6}
    whole, resumed = TrainingMonitor(), TrainingMonitor()
    trainer(tmp_path, whole, **settings).train()
    trainer(tmp_path, resumed, **settings).train(resume_from_checkpoint=f"{tmp_path}/checkpoint-6")
    assert resumed.progress.first == 6
    training = [each.table().query("split == 'train' and name == 'lm_loss'") for each in (whole, resumed)]
    assert training[0]["step"].tolist() == training[1]["step"].tolist() == list(range(1, 13))
    assert training[0]["value"].tolist()[:6] == training[1]["value"].tolist()[:6]


def test_one_monitor_for_two_runs_shows_the_second(tmp_path):
    monitor = TrainingMonitor()
    trainer(tmp_path, monitor).train()
    trainer(tmp_path, monitor, max_steps=5).train()
    assert monitor.table().query("split == 'train'")["step"].max() == 5 and monitor.progress.total == 5


def test_any_trainer_and_measures_after_training(tmp_path):
    data = [{name: torch.tensor(value) for name, value in one.items() if name in ("input_ids", "attention_mask", "labels")} for one in rows(8)]
    keep = lambda some: {name: value for name, value in collate([{**row, "spans": [0] * len(row["input_ids"]), "source_lang": 0, "target_lang": 0} for row in ({k: v.tolist() for k, v in one.items()} for one in some)]).items() if name in data[0]}
    args = TrainingArguments(output_dir=str(tmp_path), max_steps=4, logging_steps=2, report_to="none", disable_tqdm=True, use_cpu=True, save_strategy="no", dataloader_pin_memory=False)
    run = Trainer(tiny(), args, keep, data, {"de": data[:4], "sw": data[4:]})
    monitor = TrainingMonitor().attach(run)
    run.train()
    run.evaluate()
    panels = training_panels(series(monitor.lines))
    assert list(panels) == ["loss and its parts", "gradient length", "learning rate", "loss, held out"] and set(panels["loss, held out"]) == {"de", "sw"}
    assert len(monitor.figure().axes) == 3 and len(monitor.figure(learning_rate=True).axes) == 6


def test_in_a_terminal_it_is_silent(tmp_path, capsys):
    monitor = TrainingMonitor(every=0)
    run = trainer(tmp_path, monitor)
    run.callback_handler.callbacks = [each for each in run.callback_handler.callbacks if each.__class__.__name__ != "PrinterCallback"]
    run.train()
    captured = capsys.readouterr()
    assert captured.out == "" and "TrainingMonitor" not in captured.err and monitor.drawing_seconds == 0
    assert "step 12 of 12" in repr(monitor) and monitor._repr_svg_().startswith("<svg")


def test_other_processes_do_nothing(tmp_path):
    monitor = TrainingMonitor()
    run = trainer(tmp_path, monitor)
    run.is_world_process_zero = lambda: False
    run.train()
    assert run.state.is_world_process_zero is False and monitor.lines == [] and monitor.progress == Progress()
    with pytest.raises(InputError, match="nothing was logged yet"):
        monitor.figure()


def test_alarms_are_kept_and_shown_and_printed_as_before(tmp_path, monkeypatch):
    heard = []
    monkeypatch.setattr(logging, "lastResort", SimpleNamespace(handle=lambda record: heard.append(record.getMessage())))
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    monitor = TrainingMonitor()
    run = trainer(tmp_path, monitor, max_steps=60, diagnostics_steps=1, eval_strategy="no", learning_rate=1e-2)
    run.train()
    assert heard and heard == monitor.alarms, "without a handler of the user's, Python prints warnings, with a monitor and without"
    assert logging.getLogger("alignx").handlers == []
    assert any("copying" in text for text in monitor.alarms), monitor.table().query("name in ['pooled_retrieval_accuracy', 'alone_retrieval_accuracy']").tail()
    assert "copying" in monitor.to_html() and "copying" in repr(monitor) and "copying" in monitor._repr_svg_()


# ---- odd logs -------------------------------------------------------------------------------------------------------
def test_a_loss_that_is_not_a_number_leaves_a_gap():
    lines = [{"loss": math.nan if step in (4, 5) else math.inf if step == 6 else 1 / step, "grad_norm": 0.0 if step == 3 else 1.0, "step": step} for step in range(1, 11)]
    panels = training_panels(series(lines))
    svg = panel_html("loss and its parts", panels["loss and its parts"], 10)
    path = svg.split('<path d="M')[2].split('"')[0]
    assert path.count("M") + 1 == 2 and path.count("L") == 2 + 3, "two strokes: steps 1 to 3 and 7 to 10"
    assert "nan" not in svg and "inf" not in svg
    assert "nan" not in panel_html("gradient length", panels["gradient length"], 10)
    monitor = TrainingMonitor()
    monitor.lines = lines
    assert monitor.figure().axes and monitor.table()["value"].isna().sum() == 2


@pytest.mark.parametrize("values", [[math.nan] * 3, [0.0] * 3, [-1.0, math.inf, -2.0], [1e-300, 1e300, 5.0]])
@pytest.mark.parametrize("name", ["loss", "grad_norm", "gradient_cosine_lm_contrastive", "mine_7", "retrieval_accuracy"])
def test_any_values_can_be_drawn(name, values):
    monitor = TrainingMonitor()
    monitor.lines = [{name: value, f"eval_{name}": value, "step": step} for step, value in enumerate(values)]
    html = monitor.to_html()
    assert "<svg" in html and monitor._repr_svg_().startswith("<svg")
    assert not any(f'"{bad}' in html or f" {bad}" in html.split("<svg", 1)[1].split("</svg>")[0] for bad in ("nan", "inf"))


def test_names_that_nobody_knows_are_grouped_and_escaped():
    hostile = "<img src=x onerror=alert(1)>"
    monitor = TrainingMonitor()
    monitor.lines = [{"eval_retrieval_layer_3": 0.5, "eval_retrieval_layer_12": 0.6, "eval_xx_bleu": 3.0, hostile: 1.0, "": 2.0, "note": "text", "flag": True, "step": 1}, {"loss": 1.0}]
    panels = training_panels(series(monitor.lines))
    assert set(panels["retrieval layer, held out"]) == {"3", "12"} and set(panels["bleu, held out"]) == {"xx"}
    assert hostile not in monitor.to_html() and hostile not in monitor._repr_svg_()
    assert set(monitor.table()["name"]) == {"retrieval_layer_3", "retrieval_layer_12", "xx_bleu", hostile, ""}


def test_a_long_run_is_thinned_and_keeps_its_end():
    monitor = TrainingMonitor()
    monitor.lines = [{"loss": 1 / step, "step": step} for step in range(1, 20_001)]
    monitor.progress = Progress(step=20_000, total=20_000)
    html = monitor.to_html()
    assert len(html) < 20_000 and "<b>5e-05</b>" in html


def test_words_about_time():
    progress = Progress(step=120, total=400, first=100, seconds=10.0, rows=64)
    assert progress.words({}) == "step 120 of 400 · training · 0:10 so far, 2:20 left · 128 rows/s"
    assert "not known yet" in Progress(step=100, total=400, first=100).words({})
    assert Progress(step=7, total=8, seconds=3725, doing="done").words({"train_tokens_per_second": 1234.5}) == "step 7 of 8 · done · 1:02:05 · 1,234 tokens/s"


def test_settings_are_checked():
    for wrong in (-1, math.nan):
        with pytest.raises(UsageError, match="every"):
            TrainingMonitor(every=wrong)


# ---- in a notebook, with a kernel -----------------------------------------------------------------------------------
SETUP = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_monitor import *
from tempfile import mkdtemp
class Breaks(TrainerCallback):
    def __init__(self, error): self.error = error
    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == 5: raise self.error
class Peeks(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 8:
            view = monitor._view
            print("LIVE", all(words in view.body.value for words in ("step 8 of 12", "progressbar", "gradient cosine", "perplexity, held out")), "learning rate by step" in view.rate.value, "learning rate by step" not in view.body.value, int(view.rate.layout.max_width.removesuffix("px")) <= 400)
def slow(monitor):
    drawn, draw = [], monitor.to_html
    def wait():
        import time; time.sleep(0.1); drawn.append(1)
        return draw()
    monitor.to_html = wait
    return drawn
"""
CELLS = {
    "well": "monitor = TrainingMonitor(every=0); trainer(mkdtemp(), monitor).train();",
    "attached": "run = trainer(mkdtemp(), TrainingMonitor(every=0)); monitor = TrainingMonitor(every=0).attach(run); run.train(); assert not any('P' == type(one).__name__[0] for one in run.callback_handler.callbacks)",
    "error": "monitor = TrainingMonitor(every=0); trainer(mkdtemp(), monitor, [Breaks(OSError('disk'))]).train()",
    "interrupt": "monitor = TrainingMonitor(every=0); trainer(mkdtemp(), monitor, [Breaks(KeyboardInterrupt())]).train()",
    "caught": "monitor = TrainingMonitor(every=0)\ntry: trainer(mkdtemp(), monitor, [Breaks(OSError('disk'))]).train()\nexcept OSError: print('caught')",
    "early": "monitor = TrainingMonitor(every=0); trainer(mkdtemp(), monitor, [Breaks(OSError('disk'))], logging_steps=100, eval_strategy='no').train()",
    "drawing fails": "monitor = TrainingMonitor(every=0); monitor.to_html = lambda: 1 / 0; trainer(mkdtemp(), monitor).train();",
    "live": "import alignx.explore.monitor as module; module.PATIENCE = 0\nmonitor = TrainingMonitor(every=0); trainer(mkdtemp(), monitor, [Peeks()]).train(); module.PATIENCE = 50",
    "slow drawing": "monitor = TrainingMonitor(every=0); drawn = slow(monitor); trainer(mkdtemp(), monitor).train(); print('DRAWN', len(drawn), monitor.progress.seconds)",
    "afterwards": "import ipywidgets, json; from IPython import get_ipython; from ipywidgets.widgets.widget import _instances; print(len(_instances), sum('monitor' in repr(one) for one in get_ipython().events.callbacks['post_run_cell']))",
}


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [nbformat.v4.new_code_cell(source) for source in (SETUP, *CELLS.values())]
    client = NotebookClient(notebook, kernel_name="python3", timeout=120, allow_errors=True, resources={"metadata": {"path": str(tmp_path_factory.mktemp("notebook"))}})
    client.execute()
    assert not notebook.cells[0].outputs, notebook.cells[0].outputs
    return dict(zip(CELLS, (cell.outputs for cell in notebook.cells[1:])))


def pictures(outputs):
    return [output["data"] for output in outputs if output.output_type in ("display_data", "execute_result")]


@pytest.mark.parametrize("name, step, how", [("well", 12, "done"), ("attached", 12, "done"), ("error", 5, "stopped by OSError"), ("interrupt", 5, "stopped by KeyboardInterrupt"), ("caught", 5, "stopped"), ("drawing fails", 12, None)])
def test_a_saved_notebook_keeps_a_picture_and_no_widget(cells, name, step, how):
    found = [data for data in pictures(cells[name]) if "image/svg+xml" in data]
    assert len(found) == (2 if name == "attached" else 1), cells[name]
    assert not any("widget" in kind for data in pictures(cells[name]) for kind in data)
    if how:
        assert f"step {step} of 12 · {how} · 0:0" in found[0]["text/plain"]
        assert "contrastive loss" in found[0]["image/svg+xml"] and len(found[0]["image/svg+xml"]) < 200_000


def test_a_run_that_logged_nothing_leaves_words(cells):
    found = pictures(cells["early"])
    assert [set(data) for data in found] == [{"text/plain"}] and "step 5 of 12 · stopped by OSError" in found[0]["text/plain"]


def test_a_fault_in_drawing_is_said_once_and_training_goes_on(cells):
    words = "".join(output.text for output in cells["drawing fails"] if output.output_type == "stream")
    assert words.count("training goes on without a view") == 1


def printed(outputs, word):
    return [line.split()[1:] for output in outputs if output.output_type == "stream" for line in output.text.splitlines() if line.startswith(word)]


def test_the_live_view_shows_everything_at_every_step(cells):
    assert printed(cells["live"], "LIVE") == [["True"] * 4]


def test_drawing_that_takes_long_is_done_seldom(cells):
    [[drawn, seconds]] = printed(cells["slow drawing"], "DRAWN")
    assert int(drawn) <= 1 + float(seconds) / 5, "a redraw of 0.1 s, and then none for 5 s"


def test_nothing_is_left_over(cells):
    assert cells["afterwards"][0].text.split() == ["0", "0"], "widgets in the kernel, callbacks of the shell"
