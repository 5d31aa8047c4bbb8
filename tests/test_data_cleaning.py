from datasets import Dataset

from alignx.data import clean_parallel, report_table
from alignx.data.cleaning import expansion, fingerprint, has_odd_lengths

SOUND = [(f"This is sentence number {index} of them.", f"Dies ist der Satz Nummer {index} davon.") for index in range(20)]


def rows(*pairs):
    return Dataset.from_list([{"id": str(index), "domain": "", "source": source, "target": target, "source_lang": "en", "target_lang": "de"} for index, (source, target) in enumerate(pairs)])


def test_each_reason_once():
    text, long = SOUND[0][0], "word " * 300
    bad = [("", "x"), ("x", " \n"), (text, f" {text.upper()}"), (long, long[:-1] + "e"), (text, "Dies."), SOUND[3], ("THIS is  sentence number 3 of them.", SOUND[3][1])]
    clean, report = clean_parallel(rows(*SOUND, *bad), exclude=rows(("other", SOUND[5][1])))
    table = report_table(report)["rows"]
    assert dict(table) == {"empty": 2, "identical": 1, "long": 1, "odd lengths": 1, "duplicate": 2, "in the evaluation rows": 1}
    assert clean["source"] == [source for index, (source, _) in enumerate(SOUND) if index != 5]
    assert report.kept == len(clean) == 19 and report.total == 27
    assert report_table(report, by_direction=True)["en→de"].sum() == 8


def test_nothing_to_drop_and_nothing_at_all():
    clean, report = clean_parallel(rows(*SOUND))
    assert clean[:] == rows(*SOUND)[:] and report.kept == 20 and report_table(report)["rows"].sum() == 0
    assert report_table(report, by_direction=True).shape[0] == 6
    empty = rows(*SOUND).select([])
    assert len(clean_parallel(empty)[0]) == 0


def test_exclusion_is_by_language():
    evaluation = Dataset.from_list([{"source": "unrelated", "target": SOUND[2][0], "source_lang": "fr", "target_lang": "nl"}])
    assert len(clean_parallel(rows(*SOUND), exclude=evaluation)[0]) == 20, "the same letters in another language are another sentence"


def test_limits_are_read():
    assert clean_parallel(rows(*SOUND), max_characters=5)[1].counts["long", "en→de"] == 20
    assert clean_parallel(rows(*SOUND, (SOUND[0][0], "Kurzer Satz.")), max_ratio=10)[1].kept == 21


def test_expansion_is_weighted_and_robust():
    assert expansion(["a" * 100, "b"], ["c" * 30, "d" * 9]) == 0.3
    assert expansion(["a" * 10] * 9 + ["a" * 10], ["b" * 20] * 9 + ["b" * 1000]) == 2.0
    assert expansion([], []) == expansion([""], ["x"]) == 1.0
    assert not has_odd_lengths("x" * 100, "y" * 30, 0.3, 1.01) and has_odd_lengths("x" * 100, "y" * 100, 0.3, 2)


def test_fingerprint_keeps_what_matters():
    assert fingerprint("ＡＢＣ　ｄ") == fingerprint("abc D") and fingerprint("Straße") == fingerprint("STRASSE")
    assert fingerprint("é") == fingerprint("e\u0301") and fingerprint("resume") != fingerprint("résumé")
