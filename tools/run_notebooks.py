"""Run notebooks top to bottom and save their outputs, then clean them.

    python tools/run_notebooks.py                      # all of nbs/
    python tools/run_notebooks.py nbs/align            # one room
    python tools/run_notebooks.py nbs/align/01_pooling.ipynb --with slow

`nbdev_test` runs notebooks but keeps nothing; a reader wants to see what the cells showed. Cells flagged
`#| gpu`, `#| net` or `#| slow` keep the output that they have, unless the flag is named with `--with`.
"""
import argparse
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

FLAGS = ("slow", "gpu", "net")
DIRECTIVE = re.compile(r"^#\|\s*(\w+)(?::?\s*(\w+))?", re.M)


def directives(source: str) -> dict:
    "The `#| name: value` lines of a cell."
    return {name: value for name, value in DIRECTIVE.findall(source)}


def is_skipped(cell, wanted: set) -> bool:
    "Whether a code cell is to be left alone: `#| eval: false`, or a flag that was not asked for."
    found = directives(cell.source)
    return found.get("eval") == "false" or any(flag in found for flag in FLAGS if flag not in wanted)


def is_bar(output) -> bool:
    "Whether an output is the widget of a progress bar, which is dead without its kernel."
    data = output.get("data", {})
    return "application/vnd.jupyter.widget-view+json" in data and bool(re.search(r"\d+%\||\d+it \[", data.get("text/plain", "")))


def run(path: Path, wanted: set, timeout: int) -> float:
    "Execute the notebook at `path` in its own folder, write the outputs into it; returns seconds."
    start = time.time()
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(notebook, timeout=timeout, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}})
    with client.setup_kernel():
        for index, cell in enumerate(notebook.cells):
            if cell.cell_type == "code" and not is_skipped(cell, wanted):
                client.execute_cell(cell, index)
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if not is_bar(output)]
    partial = path.with_suffix(".ipynb.partial")
    nbformat.write(notebook, partial)
    os.replace(partial, path)
    subprocess.run(["nbdev_clean", "--fname", str(path)], check=True)
    return time.time() - start


def find(paths: list[str]) -> list[Path]:
    "Notebooks below `paths`, in reading order."
    found = []
    for path in map(Path, paths):
        found += [path] if path.is_file() else sorted(path.rglob("*.ipynb"))
    return [p for p in found if not any(part.startswith(("_", ".")) for part in p.parts)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*", default=["nbs"], help="notebooks or folders (default: nbs)")
    parser.add_argument("--with", dest="wanted", action="append", default=[], choices=FLAGS, help="also run cells with this flag")
    parser.add_argument("--timeout", type=int, default=600, help="seconds a cell may take")
    arguments = parser.parse_args()
    os.environ["PATH"] = str(Path(sys.executable).parent) + os.pathsep + os.environ["PATH"]
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    if "net" not in arguments.wanted:
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
    failed = []
    for path in find(arguments.paths):
        try:
            print(f"{path}  {run(path, set(arguments.wanted), arguments.timeout):.1f} s", flush=True)
        except CellExecutionError as error:
            failed.append(path)
            print(f"{path}  FAILED\n{error}", flush=True)
    if failed:
        print(f"{len(failed)} failed: " + ", ".join(map(str, failed)))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
