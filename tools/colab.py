"""The first code cell of every notebook: in Colab it installs the package, and what the notebook reads besides.

    python tools/colab.py           # write the cells
    python tools/colab.py --check   # exit 1 if one of them is out of date

The cell does nothing where there is no folder `/content`. It asks for the extras and libraries that the notebook
imports; a notebook that reads files of the repository gets a copy of them, at the same relative place.
"""
import argparse
import re
import sys
from pathlib import Path

import nbformat

REPOSITORY = "https://github.com/alignx/alignx"
EXTRAS = {"peft": "peft", "lm_eval": "eval", "rouge_score": "eval"}
LIBRARIES = {"trl": "'trl>=1.0,<2'", "umap": "umap-learn"}
FIRST = "#| hide\n#| eval: false\n"
NOTEBOOKS = Path(__file__).resolve().parent.parent / "nbs"


def setup_cell(notebook: nbformat.NotebookNode, path: Path) -> str:
    "What the first code cell of the notebook at `path` has to be."
    code = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code" and not cell.source.startswith(FIRST))
    imported = set(re.findall(r"^\s*(?:import|from)\s+(\w+)", code, re.M))
    extras = ",".join(sorted({extra for module, extra in EXTRAS.items() if module in imported}))
    more = "".join(f" {name}" for module, name in LIBRARIES.items() if module in imported)
    package = f'"alignx{f"[{extras}]" if extras else ""} @ git+{REPOSITORY}"{more}'
    steps = [f"pip install -q {package}"]
    files = [file.relative_to(path.parent) for file in path.parent.rglob("*.*") if file.suffix in (".json", ".html", ".parquet")]
    beside = any(f'"{name.as_posix()}"' in code for file in files for name in ((file.parent,) if file.suffix == ".parquet" else (file,)))
    above = sorted(set(re.findall(r"\"\.\./\.\./(\w+)", code)))
    if beside or above:
        folder = path.relative_to(NOTEBOOKS.parent).parent.as_posix()
        steps += [f"([ -d /opt/alignx ] || git clone -q --depth 1 {REPOSITORY} /opt/alignx)", *([f"cp -r /opt/alignx/{folder}/* ."] if beside else []), *(f"cp -r /opt/alignx/{name} /" for name in above)]
    return FIRST + "![ ! -d /content ] || (" + " && ".join(steps) + ")"


def update(path: Path, write: bool) -> bool:
    "Put the cell where it belongs, straight after the title; returns whether it was right already."
    notebook = nbformat.read(path, as_version=4)
    wanted, cells = setup_cell(notebook, path), notebook.cells
    present = len(cells) > 1 and cells[1].source.startswith(FIRST)
    if present and cells[1].source == wanted:
        return True
    if write:
        cell = nbformat.v4.new_code_cell(wanted)
        cell["id"] = cells[1]["id"] if present else cell["id"][:8]
        cells[1 : 1 + present] = [cell]
        path.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")
    return False


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="only look")
    check = parser.parse_args().check
    paths = [path for path in sorted(NOTEBOOKS.rglob("*.ipynb")) if not any(part.startswith(("_", ".")) for part in path.relative_to(NOTEBOOKS).parts)]
    stale = [path for path in paths if not update(path, not check)]
    for path in stale:
        print(f"{path.relative_to(NOTEBOOKS.parent)}: {'its first code cell is out of date; run python tools/colab.py' if check else 'written'}")
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
