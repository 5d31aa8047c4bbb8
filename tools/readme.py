"""Make README.md from the home page, nbs/index.ipynb.

    python tools/readme.py            # write README.md and its pictures
    python tools/readme.py --check    # say whether they are up to date

Cells flagged `#| hide` are left out, and so are outputs that are not text or pictures. Pictures are written to
nbs/index_files/, where the README shows them from.
"""
import argparse
import os
import re
import sys
from pathlib import Path

import nbformat
from nbconvert import MarkdownExporter

ROOT = Path(__file__).resolve().parent.parent
DIRECTIVE = re.compile(r"^#\|.*\n?", re.M)
NOTHING = "SOURCE-NOT-SHOWN"


def prepared(notebook):
    "The notebook as a reader of the README should see it."
    cells = []
    for cell in notebook.cells:
        if "#| hide" in cell.source:
            continue
        if cell.cell_type == "code":
            shown = "#| echo: false" not in cell.source
            cell.source = DIRECTIVE.sub("", cell.source).strip() if shown else NOTHING
            for output in cell.outputs:
                output.get("data", {}).pop("text/html", None)
        cells.append(cell)
    notebook.cells = cells
    return notebook


def render(path: Path, files: str) -> tuple[str, dict[str, bytes]]:
    "Markdown of the notebook, and its pictures by file name."
    notebook = prepared(nbformat.read(path, as_version=4))
    resources = {"output_files_dir": files, "unique_key": "figure"}
    text, resources = MarkdownExporter().from_notebook_node(notebook, resources)
    text = re.sub(rf"```\w*\s*{NOTHING}\s*```\n*", "", text)
    text = re.sub(r"\]\((?!https?:|#|nbs/)([\w/.-]+\.(?:ipynb|qmd))\)", r"](nbs/\1)", text)
    text = re.sub(r"!\[[^\]]*\]\((.+?)\)", lambda m: f"![alignx: results]({m[1]})", text)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n", resources.get("outputs", {})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing, exit with 1 if README.md is not up to date")
    arguments = parser.parse_args()
    text, pictures = render(ROOT / "nbs" / "index.ipynb", "nbs/index_files")
    wanted = {ROOT / "README.md": text.encode()} | {ROOT / name: data for name, data in pictures.items()}
    stale = [path for path, data in wanted.items() if not path.is_file() or path.read_bytes() != data]
    for path in stale:
        print(("out of date: " if arguments.check else "wrote ") + str(path.relative_to(ROOT)))
        if not arguments.check:
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_name(path.name + ".partial")
            partial.write_bytes(wanted[path])
            os.replace(partial, path)
    return 1 if arguments.check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
