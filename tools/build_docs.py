"""Render the documentation site into `_docs/` without Quarto.

    python tools/build_docs.py            # needs the dev extra
    python -m http.server -d _docs        # and look at http://localhost:8000

`nbdev` turns the notebooks into pages (documentation of symbols, links between chapters, hidden cells), `smalldocs` lays
them out as `_quarto.yml` says. What is done here is what would differ from `nbdev_docs` with Quarto: pages get the names
that `output-file` gives them, links to symbols stay inside the site, formulas become MathML, and no style or script
comes from another server. The command fails where a link inside the site leads nowhere.
"""
import argparse
import html
import json
import re
import shutil
import sys
from pathlib import Path
from posixpath import dirname, join, normpath, relpath
from urllib.parse import unquote

import nbdev.doclinks
import yaml
from latex2mathml.converter import convert
from nbdev.config import get_config
from nbdev.serve import proc_nbs
from smalldocs.site import build

TAG = re.compile(r"<(?:a|img|script|link)\b[^>]*>")
LINK = re.compile(r'\b(href|src)="([^"]*)"')
MATH = re.compile(r'<span class="math (inline|display)">\\[(\[](.*?)\\[)\]]</span>', re.S)
SCRIPTED_MATH = re.compile(r'<(?:link|script)\b[^>]*/katex@[^>]*>(?:</script>)?')
REMOTE_FONT = re.compile(r"@import\s*url\(['\"]?https?:[^)]*\);?")
EXPECTED = re.compile("broken link|output-file is not read|compiles no Sass|commonmark is not built|html-math-method is ignored|execute.enabled is ignored")  # links are checked on the finished site
IDENTIFIER = re.compile(r'\s(?:id|name)="([^"]+)"')


def new_names(source: Path) -> dict[str, str]:
    "For each page of the processed folder: where the builder puts it → where `output-file` wants it."
    names = {page.relative_to(source).with_suffix(".html").as_posix(): page.relative_to(source).with_suffix(".html").as_posix() for page in source.rglob("*.qmd")}
    for notebook in source.rglob("*.ipynb"):
        first = "".join(json.loads(notebook.read_text(encoding="utf-8"))["cells"][0]["source"])
        wanted = yaml.safe_load(first.strip().strip("-")).get("output-file", notebook.with_suffix(".html").name)
        place = notebook.relative_to(source).with_suffix(".html")
        names[place.as_posix()] = place.with_name(wanted).as_posix()
    taken = [old for old, new in names.items() if list(names.values()).count(new) > 1]
    if taken:
        raise SystemExit("two pages would get one name: " + ", ".join(taken))
    return names


def local(link: str, page: str, names: dict[str, str], home: str) -> str:
    "`link`, as the page that was built at `page` has it, for the page under its new name; links to elsewhere as they are."
    here = names.get(page, page)
    if link.startswith(home):
        target, _, anchor = link.removeprefix(home).lstrip("/").partition("#")
    elif not link or re.match(r"[a-z][\w+.-]*:|//|#", link, re.I):
        return link
    else:
        target, _, anchor = link.partition("#")
        target = normpath(join(dirname(page), target))
        target = names.get(target, target)
    return relpath(target or "index.html", dirname(here) or ".") + (f"#{anchor}" if anchor else "")


def formula(found: re.Match) -> str:
    "MathML for a formula that waits for a script."
    try:
        return convert(html.unescape(found[2]), display="block" if found[1] == "display" else "inline")
    except Exception as error:
        raise SystemExit(f"formula not understood ({error}): {html.unescape(found[2])}") from error


def finish_page(text: str, page: str, names: dict[str, str], home: str) -> str:
    "A built page with its links, formulas and scripts as they have to be."
    def relink(tag: re.Match) -> str:
        return LINK.sub(lambda found: f'{found[1]}="{html.escape(local(html.unescape(found[2]), page, names, home))}"', tag[0])

    text = re.sub(rf"\[`([^`\n]+)`\]\({re.escape(home)}[^)\s]*\)", r"`\1`", text)  # a link to a symbol, made inside code
    return MATH.sub(formula, SCRIPTED_MATH.sub("", TAG.sub(relink, text)))


def dead_links(site: Path) -> list[str]:
    "Links within the built site that lead to no file or to no place on a page, as `page: link`."
    pages = {path: path.read_text(encoding="utf-8") for path in sorted(site.rglob("*.html"))}
    places = {path: set(IDENTIFIER.findall(text)) for path, text in pages.items()}
    dead = []
    for path, text in pages.items():
        for tag in TAG.findall(text):
            for _, link in LINK.findall(tag):
                link = html.unescape(link)
                if not link or re.match(r"[a-z][\w+.-]*:|//", link, re.I):
                    continue
                target, _, anchor = link.partition("#")
                file = path if not target else (path.parent / unquote(target)).resolve()
                file = file / "index.html" if file.is_dir() else file
                if not file.is_file() or (anchor and file in places and unquote(anchor) not in places[file]):
                    dead.append(f"{path.relative_to(site)}: {link}")
    return dead


def finish_site(site: Path, names: dict[str, str], home: str) -> None:
    "Rename the pages and put their content, the search index, the map of the site and the styles right."
    for old, new in names.items():
        text = finish_page((site / old).read_text(encoding="utf-8"), old, names, home)
        (site / old).unlink()
        (site / new).write_text(text, encoding="utf-8")
    entries = json.loads((site / "search.json").read_text(encoding="utf-8"))
    for entry in entries:
        page, _, anchor = entry["href"].partition("#")
        entry["href"] = entry["objectID"] = names.get(page, page) + (f"#{anchor}" if anchor else "")
    (site / "search.json").write_text(json.dumps(entries, ensure_ascii=False), encoding="utf-8")
    sitemap = (site / "sitemap.xml").read_text(encoding="utf-8")
    for old, new in names.items():
        sitemap = sitemap.replace(f"{home}/{old}<", f"{home}/{new}<")
    (site / "sitemap.xml").write_text(sitemap, encoding="utf-8")
    for style in site.rglob("*.css"):
        text = style.read_text(encoding="utf-8")
        if REMOTE_FONT.search(text):
            style.write_text(REMOTE_FONT.sub("", text), encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="folder to write (default: _docs); an older site there is replaced")
    parser.add_argument("--workers", type=int, default=2, help="notebooks that are processed at a time")
    arguments = parser.parse_args()
    config = get_config()
    output = (arguments.output or config.config_path / config.doc_path.name).resolve()
    if output.exists() and not (output / "site_libs").is_dir():
        parser.error(f"{output} exists and is not a built site; name another folder")
    nbdev.doclinks._build_modidx()
    source = Path(proc_nbs(force=True, n_workers=arguments.workers))
    built = build(source, quiet=True)
    site, home = Path(built.out), config.doc_host.rstrip("/") + config.doc_baseurl
    finish_site(site, new_names(source), home)
    dead = dead_links(site)
    problems = [f"dead link: {link}" for link in dead] + [warning for warning in built.warnings if not EXPECTED.search(warning)]
    print("\n".join(problems))
    shutil.rmtree(output, ignore_errors=True)
    shutil.move(site, output)
    pages = sorted(output.rglob("*.html"), key=lambda path: -path.stat().st_size)
    print(f"{len(pages)} pages in {output}; the largest is {pages[0].relative_to(output)}, {pages[0].stat().st_size / 1e6:.2f} MB")
    return int(bool(dead))


if __name__ == "__main__":
    sys.exit(main())
