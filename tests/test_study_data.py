"""The data of the study, from small made-up corpora: what is kept apart, what is left out, and that it is the same every time."""
import gzip
import hashlib
import importlib.util
import json
from pathlib import Path

import pytest

from alignx.data.instruction_files import load_instructions
from alignx.data.parallel import load_parallel
from alignx.evaluate.facts import load_facts

ROOT = Path(__file__).resolve().parent.parent
spec = importlib.util.spec_from_file_location("study_data", ROOT / "tools" / "study_data.py")
study_data = importlib.util.module_from_spec(spec)
spec.loader.exec_module(study_data)

LANGUAGES, MEASURED = study_data.LANGUAGES, study_data.MEASURED
FILES = ("train", "validation", "test_in_domain", "test_story", "test_udhr")
TESTS = FILES[1:]
CURRENCY = {"en": "Which currency?", **{language: f"Which currency, {language}?" for language in MEASURED if language != "en"}}


def word(number, language):
    "A made-up word of a language, which no country is called."
    digest = hashlib.sha256(f"{number} {language}".encode()).digest()
    return "".join("bdfgklmnprst"[digest[n] % 12] + "aeiou"[digest[n + 1] % 5] for n in (0, 2, 4)) + "q"


def say(*numbers, languages=MEASURED):
    "A made-up sentence in each language."
    return {language: " ".join(word(number, language) for number in numbers) for language in languages}


def sentences_of(rows):
    return {study_data.folded(text) for row in rows for text in row["text"].values()}


def write(folder, name, rows):
    with gzip.open(folder / f"{name}.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def question(fact, relation, split, language, subject, answer):
    return {"fact": fact, "relation": relation, "split": split, "lang": language, "instruction": CURRENCY[language], "input": subject, "output": answer}


def make_corpora(folder):
    "Sixty documents of twelve sentences in each corpus, half of whose interface says what the help says, and every trap of the real ones."
    folder.mkdir()
    number = iter(range(10, 10**6, 10))
    ids = {
        "libreoffice": lambda d, n: f"lo.shared/{d}#par_{n}", "lo_ui": lambda d, n: f"loui.m{d}.dialog{n}|label", "manuals": lambda d, n: f"handbook.part{d}.{n}",
        "cldr": lambda d, n: f"cldr.emoji-name.{d}.{n}", "story": lambda d, n: f"wesnoth-{d}.{n}", "udhr": lambda d, n: f"udhr.art{d}.{n}",
    }  # fmt: skip
    made = {}
    for corpus, name in ids.items():
        made[corpus] = []
        for d in range(60):
            for n in range(12):
                k = next(number)
                made[corpus].append({"id": name(d, n), "domain": corpus, "text": say(*range(k, k + 6))})
    for row, other in zip(made["lo_ui"][::2], made["libreoffice"][::2]):
        row["text"]["fr"] = other["text"]["fr"].upper() + " ..."
    made["libreoffice"] += [{"id": "lo.shared/5#par_0", "domain": "libreoffice", "text": say(1, 2, 3, 4)}]
    for person in ("man", "woman", "person"):
        made["cldr"] += [{"id": f"cldr.emoji-name.{person}", "domain": "cldr", "text": {**say(1, 2, 3, 5), "en": f"{person} with a made-up hat"}}]
    made["story"] += [{"id": f"wesnoth-help.{n}", "domain": "story", "text": say(*range(900000 + 10 * n, 900006 + 10 * n))} for n in range(5)]
    made["transfer"] = transfer_rows()
    for corpus, rows in made.items():
        write(folder, corpus, rows)
    return folder


def transfer_rows():
    "A hundred and ten facts to teach, one of the test part, one about an invented country, and two about countries that are asked about."
    asked = load_facts(LANGUAGES)
    rows = [question(f"currency.{n}", "currency", "train", language, word(700 + n, language), word(900 + n, language)) for n in range(110) for language in (*MEASURED, "el") if language in CURRENCY]
    rows += [question("currency.held", "currency", "test", language, "Heldland", word(5, language)) for language in LANGUAGES]
    rows += [question("novel_currency.X", "novel_currency", "train", language, "Xopia", word(6, language)) for language in LANGUAGES]
    for kind in ("real", "novel"):
        subject = asked[asked["kind"] == kind].iloc[0]["subject"]
        names = asked[asked["fact"] == asked[asked["kind"] == kind].iloc[0]["fact"]].set_index("lang")["respelt"]
        assert names["en"] == subject
        rows += [question(f"{kind}.asked", "currency", "train", language, names[language], word(7, language)) for language in LANGUAGES]
    return rows


@pytest.fixture(scope="module")
def corpora(tmp_path_factory):
    return make_corpora(tmp_path_factory.mktemp("study") / "corpora")


@pytest.fixture(scope="module")
def built(corpora, tmp_path_factory):
    out = tmp_path_factory.mktemp("study") / "out"
    study_data.build(corpora, out)
    return out


@pytest.fixture(scope="module")
def rows(built):
    return {name: list(study_data.read_lines(built / f"{name}.jsonl.gz")) for name in FILES}


def test_every_file_has_what_its_name_says(rows):
    assert all(len(rows[name]) > 30 for name in FILES)
    assert {language for row in rows["train"] for language in row["text"]} == set(LANGUAGES)
    assert all({language for row in rows[name] for language in row["text"]} == set(MEASURED) for name in TESTS)
    for name in FILES:
        assert len({row["id"] for row in rows[name]}) == len(rows[name])
        assert all(row["text"]["en"] and set(row) == {"id", "domain", "text"} for row in rows[name])
    assert {row["domain"] for row in rows["train"]} == {row["domain"] for row in rows["test_in_domain"]} == set(study_data.CORPORA)


def test_no_document_is_on_two_sides(rows):
    sides = {name: {study_data.document_of(row["domain"], row) for row in rows[name]} for name in FILES}
    for name in TESTS:
        for other in FILES:
            assert other == name or not sides[name] & sides[other]


def test_no_sentence_is_on_two_sides_in_any_language(rows):
    letters = {name: {study_data.letters(text) for row in rows[name] for text in row["text"].values()} for name in FILES}
    for name in TESTS:
        for other in FILES:
            assert other == name or not sentences_of(rows[name]) & sentences_of(rows[other])
            assert other == name or not letters[name] & letters[other]


def test_the_corpora_do_share_sentences_that_had_to_be_dropped(rows, built, corpora):
    card = json.loads((built / "card.json").read_text("utf-8"))
    assert card["dropped"]["libreoffice"]["shares a sentence with a measured tuple"] > 3
    measured = {study_data.letters(t) for name in TESTS for row in rows[name] for t in row["text"].values()}
    kept = {row["id"] for row in rows["train"]}
    gone = [row["id"] for row in study_data.read_lines(corpora / "libreoffice.jsonl.gz") if study_data.letters(row["text"]["fr"]) in measured]
    assert gone and not kept & set(gone)


def test_no_sentence_is_twice_in_a_measured_file(rows):
    for name in TESTS:
        for language in MEASURED:
            said = [study_data.letters(row["text"][language]) for row in rows[name] if language in row["text"]]
            assert len(said) == len(set(said))


def test_a_sentence_that_is_nearly_a_measured_one_is_dropped():
    text = "The help page shows how a picture is put into the text and how it is moved to another place of the page afterwards."
    measured = [{"corpus": "manuals", "document": "a", "text": {"en": text, "de": "eins"}}]
    train = [{"corpus": "manuals", "document": "b", "text": {"en": english, "de": f"Satz {n}"}} for n, english in enumerate((text[:-1] + " too.", "Something else that is about as long as the sentence on pictures, and that has nothing to do with any of them."))]
    dropped = study_data.defaultdict(study_data.Counter)
    train[0]["text"]["de"], train[1]["text"]["de"] = "zwei", "drei"
    assert study_data.drop_measured(train, measured, dropped) == train[1:]
    assert dropped == {"manuals": {"is nearly a measured tuple in English": 1}}


def test_a_large_document_stays_in_training():
    rows = [{"document": "large"}] * 60 + [{"document": f"d{n}"} for n in range(40)]
    held = study_data.hold_out(rows, (0.2, 0.1))
    assert "large" not in held and sorted(held.values()) == [0] * 20 + [1] * 10
    assert study_data.hold_out(list(reversed(rows)), (0.2, 0.1)) == held


def test_a_translation_that_repeats_the_english_is_not_measured():
    row = {"corpus": "udhr", "id": "x", "document": "x", "domain": "law", "text": {"en": "Macquarie Island", "de": "macquarie island!", "fr": "Île Macquarie"}}
    assert study_data.measurable(row, 2)["text"] == {"en": "Macquarie Island", "fr": "Île Macquarie"}
    assert study_data.measurable(row, 3) is None
    assert study_data.measurable({**row, "corpus": "story"}, 2) is None, "too short"


def test_people_of_one_name_are_one_document(corpora):
    documents = {row["document"] for row in study_data.read_corpus(corpora, "cldr") if row["text"]["en"].endswith("hat")}
    assert len(documents) == 1


def test_nothing_of_narrative_and_law_is_trained_on(rows):
    assert {row["domain"] for row in rows["train"] + rows["validation"] + rows["test_in_domain"]}.isdisjoint({"story", "udhr"})
    assert not any(row["id"].startswith("wesnoth-help") for row in rows["test_story"])
    campaigns = study_data.Counter(row["id"].split(".")[0] for row in rows["test_story"])
    assert len(campaigns) == 60 and max(campaigns.values()) - min(campaigns.values()) <= 1


def test_instructions_are_about_nothing_that_is_measured(built, rows):
    read = load_instructions(built / "instructions.jsonl")
    counts = study_data.Counter(read["lang"])
    assert counts == {language: study_data.PER_RELATION for language in LANGUAGES}
    facts = load_facts()
    asked = {study_data.letters(name) for column in ("subject", "respelt") for name in facts[column]}
    assert not asked & {study_data.letters(text) for text in read["input"]}
    assert not {"Heldland", "Xopia"} & set(read["input"])
    said = {study_data.folded(text) for field in ("instruction", "input", "output") for text in read[field]}
    assert all(not said & sentences_of(rows[name]) for name in TESTS)


def test_an_invented_country_is_found_in_the_middle_of_an_instruction_in_every_language():
    real, novel, _ = study_data.asked_names()
    fact = load_facts(kinds=["novel"])
    for name in fact[fact["fact"] == fact.iloc[0]["fact"]]["respelt"]:
        row = {"instruction": f"Say more about {name}!", "input": "", "output": "-", "split": "train", "relation": "currency"}
        assert study_data.unfit(row, real, novel) == "about a country that the knowledge measure asks about"
    assert study_data.unfit({**row, "instruction": "Say more about hats!"}, real, novel) is None


def test_the_card_counts_what_is_there(built, rows):
    card = json.loads((built / "card.json").read_text("utf-8"))
    for name in FILES:
        assert card["files"][name]["tuples"] == len(rows[name])
        assert card["files"][name]["languages"]["sw"] == sum("sw" in row["text"] for row in rows[name])
        assert card["sha256"][f"{name}.jsonl.gz"] == hashlib.sha256((built / f"{name}.jsonl.gz").read_bytes()).hexdigest()
    assert len(card["shared_sentences"]) == 14 and set(card["shared_sentences"].values()) == {0}
    assert set(card["shared_documents"].values()) == {0}
    assert card["dropped"]["transfer"]["about a country that the knowledge measure asks about"] == 24
    assert card["instructions_about_what_is_asked"] == 0


def test_what_is_shared_is_seen_and_refused(corpora, tmp_path, monkeypatch):
    monkeypatch.setattr(study_data, "drop_measured", lambda train, measured, dropped: train)
    with pytest.raises(SystemExit, match="train and test_in_domain"):
        study_data.build(corpora, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "card.json").read_text("utf-8"))["shared_sentences"]["train and test_in_domain"] > 0


def test_the_same_corpora_make_the_same_bytes(corpora, built, tmp_path):
    assert study_data.main([str(corpora), str(tmp_path / "again")]) == 0
    names = sorted(path.name for path in built.iterdir())
    assert names == sorted([*(f"{name}.jsonl.gz" for name in FILES), "instructions.jsonl", "card.json"]), "nothing partial is left"
    assert all((built / name).read_bytes() == (tmp_path / "again" / name).read_bytes() for name in names)


def test_a_split_does_not_depend_on_the_order_of_a_corpus(corpora):
    rows = study_data.read_corpus(corpora, "manuals")
    drawn = study_data.draw(rows, 30, set())
    assert len(drawn) == 30 and study_data.draw(rows[::-1], 30, set()) == drawn


def test_alignx_reads_what_was_made(built, rows):
    read = load_parallel(built / "train.jsonl.gz", list(LANGUAGES))
    assert read.num_rows == sum(len(row["text"]) - 1 for row in rows["train"])


def test_missing_and_broken_files_are_named(corpora, tmp_path):
    with pytest.raises(SystemExit, match="libreoffice.jsonl.gz.*transfer.jsonl.gz not there"):
        study_data.main([str(tmp_path), str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()
    (tmp_path / "manuals.jsonl.gz").write_bytes(b"no gzip")
    write(tmp_path, "cldr", [{"id": "a", "domain": "b"}])
    write(tmp_path, "transfer", [{"fact": "a", "relation": "b", "split": "train", "lang": "en", "instruction": "c"}])
    with pytest.raises(SystemExit, match="manuals.jsonl.gz: cannot be read"):
        study_data.read_corpus(tmp_path, "manuals")
    with pytest.raises(SystemExit, match="cldr.jsonl.gz, line 1: 'id', 'domain' or 'text' is missing"):
        study_data.read_corpus(tmp_path, "cldr")
    with pytest.raises(SystemExit, match="transfer.jsonl.gz, line 1: field 'input' is missing"):
        study_data.choose_instructions(tmp_path, set(), set())
