"""The chain of filters: what goes, what stays, and that neither processes nor batches nor streams change it."""
import json

import pytest
from datasets import Dataset

from alignx.data import DEFAULT_LANGUAGES, STREAM_FILTERS, clean_parallel, load_parallel, plot_report, read_report, report_table, write_report
from alignx.data.cleaning import REASONS, ROW_FILTERS
from alignx.data.cleaning_evidence import KINDS, count_found, found_by, plant_damage
from alignx.data.filters import has_different_digits
from alignx.demo import demo_corpus
from alignx.errors import InputError, UsageError

SOUND = [(f"This is sentence number {index} of them.", f"Dies ist der Satz Nummer {index} davon.") for index in range(20)]
OLD_FILTERS = ("empty", "identical", "long", "odd lengths", "duplicate", "in the evaluation rows")


def rows(*pairs, source_lang="en", target_lang="de"):
    return Dataset.from_list([
        {"id": str(index), "domain": "", "source": source, "target": target, "source_lang": source_lang, "target_lang": target_lang}
        for index, (source, target) in enumerate(pairs)
    ])  # fmt: skip


@pytest.fixture(scope="module")
def demo():
    return [load_parallel(demo_corpus(), DEFAULT_LANGUAGES, split=split) for split in ("train", "test")]


@pytest.fixture(scope="module")
def planted():
    train, test = (load_parallel(demo_corpus(), ["en", "es", "zh", "sw"], split=split) for split in ("train", "test"))
    return plant_damage(train.select(range(0, len(train), 2)), test, seed=1), test


def found(report):
    return {reason: count for reason, count in report_table(report)["rows"].items() if count}


def test_each_reason_once():
    text, long = SOUND[0][0], "word " * 300
    footer = "All rights to this page and everything on it are reserved by the authors", "Alle Rechte an dieser Seite und allem darauf liegen bei den Autoren"
    bad = {
        "empty": [("", "x"), ("x", " \n")],
        "identical": [(text, f" {text.upper()}")],
        "long": [(long, long[:-1] + "e")],
        "control characters": [("A caf\ufffd in town", "Ein Café in der Stadt")],
        "wrong decoding": [("A café in town", "Ein CafÃ© in der Stadt")],
        "markup": [("A <b>bold</b> word here", "Ein fettes Wort hier")],
        "wrong script": [("Save all of the files", "Сохранить все файлы")],
        "wrong language": [("The committee will meet again tomorrow morning.", "The committee meets again tomorrow in the morning.")],
        "different digits": [("Linux 2.1.25 and later", "Linux 2.1.15 und später")],
        "odd lengths": [(text, "Dies.")],
        "duplicate": [SOUND[3], ("THIS is  sentence number 3 of them.", SOUND[3][1])],
        "near duplicate": [tuple(f"{side}!" for side in footer)],
        "in the evaluation rows": [("unrelated but known", "etwas ganz anderes")],
        "near the evaluation rows": [("Everyone has the right to rest and leisure, and to holidays with pay.", "Jeder hat das Recht auf Erholung und auf bezahlten Urlaub.")],
    }
    evaluation = rows(("unrelated but known", "x"), ("Everyone has the right to rest and leisure, and to holidays with pay!", "y"))
    clean, report = clean_parallel(rows(*SOUND, footer, *[pair for pairs in bad.values() for pair in pairs]), exclude=evaluation)
    assert found(report) == {reason: len(pairs) for reason, pairs in bad.items()}
    assert clean["source"] == [source for source, _ in (*SOUND, footer)]
    assert report.kept == len(clean) == 21 and report.total == 37 and report.pairs == {"en→de": 37}
    for reason, pairs in bad.items():
        assert [(row["source"], row["target"]) for row in report.examples[reason]] == pairs


def test_a_side_that_comes_with_everything():
    letters = ["alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel", "india", "juliett", "kilo", "lima"]
    crowd = rows(*[(f"Something about {word} and the rest", "Diese Seite ist leider nicht da") for word in letters])
    assert found(clean_parallel(crowd)[1]) == {"repeated side": 12}
    assert clean_parallel(crowd, max_partners=12)[1].kept == 12


def test_nothing_to_drop_and_nothing_at_all():
    clean, report = clean_parallel(rows(*SOUND))
    assert clean[:] == rows(*SOUND)[:] and report.kept == 20 and report_table(report)["rows"].sum() == 0
    assert report_table(report, by_direction=True).shape == (len(REASONS), 1)
    empty, nothing = clean_parallel(rows(*SOUND).select([]))
    assert len(empty) == nothing.total == 0 and report_table(nothing)["share"].sum() == 0


def test_exclusion_is_by_language():
    evaluation = Dataset.from_list([{"source": "unrelated", "target": SOUND[2][0], "source_lang": "fr", "target_lang": "nl"}])
    assert len(clean_parallel(rows(*SOUND), exclude=evaluation)[0]) == 20, "the same letters in another language are another sentence"


def test_limits_are_read():
    assert clean_parallel(rows(*SOUND), max_characters=5)[1].counts["long", "en→de"] == 20
    assert clean_parallel(rows(*SOUND, (SOUND[0][0], "Kurzer Satz.")), max_ratio=10)[1].kept == 21
    near = [("This is the very first sentence of a long list of them", "Das ist der allererste Satz einer langen Liste davon")]
    near.append(tuple(f"{side} all" for side in near[0]))
    assert clean_parallel(rows(*near))[1].kept == 1 and clean_parallel(rows(*near), min_similarity=0.99)[1].kept == 2


def test_report_only_drops_nothing_and_later_filters_still_see_the_row():
    bad = ("Linux 2.1.25 <b>and later", "Linux 2.1.15")
    clean, report = clean_parallel(rows(*SOUND, bad, bad), report_only=["markup", "duplicate"])
    assert report.noted == {("markup", "en→de"): 2} and report.counts == {("different digits", "en→de"): 2}
    table = report_table(report)
    assert not table.loc["markup", "removed"] and table.loc["different digits", "removed"] and len(clean) == 20
    clean, report = clean_parallel(rows(*SOUND, SOUND[0], bad), report_only=REASONS)
    assert len(clean) == report.kept == 22 and report.noted["duplicate", "en→de"] == 1


def test_own_filters_and_limits():
    sound = rows(*SOUND)
    clean, report = clean_parallel(sound, tests={"seven": lambda source, target, *_: "7" in source})
    assert found(report) == {"seven": 2} and report.filters.index("seven") == len(ROW_FILTERS)
    strict = {"different digits": lambda source, target, *_: has_different_digits(source, target, max_missing=0)}
    assert found(clean_parallel(rows(("two", "2")), tests=strict)[1]) == {"different digits": 1}
    assert clean_parallel(rows(("two", "2")), filters=["empty"])[1].filters == ("empty",)


def test_requests_that_cannot_be_met():
    with pytest.raises(UsageError, match="unknown filter 'duplicates'.*did you mean 'duplicate'"):
        clean_parallel(rows(*SOUND), filters=["duplicates"])
    with pytest.raises(UsageError, match="'markup' is to be reported but is not among"):
        clean_parallel(rows(*SOUND), filters=["empty"], report_only=["markup"])
    with pytest.raises(UsageError, match="'duplicate' has to see all rows"):
        clean_parallel(rows(*SOUND).to_iterable_dataset())
    with pytest.raises(InputError, match="have no column 'target_lang'; read them with load_parallel"):
        clean_parallel(rows(*SOUND).remove_columns("target_lang"))
    with pytest.raises(InputError, match="no column 'damage'"):
        found_by(rows(*SOUND), rows(*SOUND))


def test_the_same_for_every_batch_size_and_number_of_processes(planted):
    spoilt, test = planted
    whole, report = clean_parallel(spoilt, exclude=test)
    for options in ({"batch_size": 37}, {"num_proc": 2, "batch_size": 500}):
        clean, other = clean_parallel(spoilt, exclude=test, **options)
        assert clean[:] == whole[:] and vars(other) == vars(report)


def test_a_stream_gives_the_rows_of_a_dataset(planted):
    spoilt, test = planted
    lengths = clean_parallel(spoilt, exclude=test, filters=STREAM_FILTERS)[1].lengths
    whole, report = clean_parallel(spoilt, exclude=test, filters=STREAM_FILTERS, lengths=lengths)
    stream, growing = clean_parallel(spoilt.to_iterable_dataset(), exclude=test, filters=STREAM_FILTERS, lengths=lengths, batch_size=64)
    assert growing.total == 0, "nothing was read yet"
    assert list(stream) == list(whole) and growing.counts == report.counts and growing.pairs == report.pairs
    assert {reason: len(kept) for reason, kept in growing.examples.items()} == {reason: len(kept) for reason, kept in report.examples.items()}
    short = clean_parallel(rows(("", "x")).to_iterable_dataset(), filters=STREAM_FILTERS)
    assert list(short[0]) == [] and short[1].kept == 0 and short[1].total == 1


def test_a_direction_that_was_never_seen_is_not_judged_by_its_length():
    chinese = rows(("A rather long sentence about nothing at all, and more of it", "一句话"), target_lang="zh")
    other = clean_parallel(rows(*SOUND))[1].lengths
    assert clean_parallel(chinese, lengths=other)[1].kept == 1 and set(other) == {"en→de"}


def test_nulls_are_empty_and_a_format_does_not_matter():
    assert found(clean_parallel(rows(("A sentence", None)))[1]) == {"empty": 1}
    assert clean_parallel(rows(*SOUND).with_format("numpy"))[1].kept == 20


def test_cleaning_what_is_clean_changes_nothing(planted):
    spoilt, test = planted
    clean, report = clean_parallel(spoilt, exclude=test)
    assert clean_parallel(clean, exclude=test, lengths=report.lengths)[1].kept == len(clean)
    assert clean_parallel(clean, filters=ROW_FILTERS)[1].kept == len(clean)


def test_planted_damage_is_found(planted):
    spoilt, test = planted
    table = count_found(spoilt, test, filters=("duplicate", "in the evaluation rows")).query("filter == 'all filters'").groupby("damage")[["rows", "found"]].sum()
    assert set(table.index) == {"", *KINDS} - ({"wrong digit"} - set(table.index))
    assert (table.loc[["exact duplicate", "test sentence"], "found"] == table.loc[["exact duplicate", "test sentence"], "rows"]).all()
    dropped = found_by(spoilt, test)
    kinds = dict.fromkeys(KINDS)
    for kind in kinds:
        mine = [hit for hit, damage in zip(dropped, spoilt["damage"]) if damage == kind]
        kinds[kind] = sum(mine) / len(mine) if mine else None
    assert min(kinds[kind] for kind in ("garbled", "markup", "exact duplicate", "test sentence")) > 0.95, kinds
    assert min(kinds[kind] for kind in ("swapped languages", "untranslated", "third language")) > 0.5, kinds  # names of little more than 20 characters
    assert sum(hit for hit, damage in zip(dropped, spoilt["damage"]) if not damage) / spoilt["damage"].count("") < 0.02


def test_good_pairs_of_every_script_stay(demo):
    train, test = demo
    report = clean_parallel(train, exclude=test)[1]
    for direction, total in report.pairs.items():
        lost = {reason: count for (reason, name), count in report.counts.items() if name == direction}
        assert sum(lost.values()) / total < 0.03, (direction, lost)
    assert 1 - report.kept / report.total < 0.015


def test_the_short_names_of_the_demo_stay(demo):
    train, test = demo
    kept = clean_parallel(train, exclude=test, max_characters=60)[1].kept
    before = clean_parallel(train, exclude=test, max_characters=60, filters=OLD_FILTERS, max_deviations=None)[1].kept
    assert kept >= 0.98 * before
    names = rows(("woman running", "laufende Frau"), ("woman swimming", "schwimmende Frau"), ("woman rowing", "rudernde Frau"))
    assert clean_parallel(names, exclude=rows(("woman walking", "gehende Frau")))[1].kept == 3


def test_report_as_file_and_picture(planted, tmp_path):
    spoilt, test = planted
    report = clean_parallel(spoilt, exclude=test, report_only=["odd lengths"])[1]
    write_report(report, tmp_path / "cleaning.json")
    assert vars(read_report(tmp_path / "cleaning.json")) == vars(report)
    assert json.loads((tmp_path / "cleaning.json").read_text(encoding="utf-8"))["kept"] == report.kept
    labels = [label.get_text() for label in plot_report(report).get_yticklabels()]
    assert labels == [reason for reason in REASONS if found(report).get(reason)]
    assert plot_report(clean_parallel(rows(*SOUND))[1]).texts[0].get_text() == "nothing was found"
    (tmp_path / "other.json").write_text("{}", encoding="utf-8")
    for name in ("other.json", "absent.json"):
        with pytest.raises(InputError, match="no cleaning report"):
            read_report(tmp_path / name)
