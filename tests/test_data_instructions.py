import json

import pytest
from datasets import Dataset, concatenate_datasets
from hypothesis import given, settings
from hypothesis import strategies as st

from alignx.data import DEFAULT_LANGUAGES, TEMPLATES, Template, load_instructions, mirror_row, render, translation_instructions
from alignx.data.instructions import REQUESTS, WORDINGS
from alignx.demo import demo_instructions
from alignx.errors import InputError, UsageError

ROW = {"instruction": "Translate this English text into German.", "input": "one", "output": "eins", "lang": "de", "source_lang": "en", "target_lang": "de"}
GENERAL = {"instruction": "Name a colour.", "input": "", "output": "Blau", "lang": "de"}


def write(path, *rows):
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


@settings(deadline=None)
@given(st.text(st.characters(codec="utf-8")), st.text(st.characters(codec="utf-8")), st.sampled_from([*TEMPLATES, "{output}|{input}|{instruction}", "{input}{output}"]))
def test_extents_are_the_stripped_sentences(source, target, template):
    found = render({**ROW, "input": source, "output": target}, template)
    for extent, sentence in ((found.source, source), (found.target, target)):
        if sentence.strip():
            if extent is None:  # only where the template has no place for an input
                assert sentence is source and "{input}" not in TEMPLATES[template].text
            else:
                assert found.text[slice(*extent)] == sentence.strip()
        else:
            assert extent is None
    assert found.text[found.completion[0]:].startswith(target)


def test_general_rows_have_no_extents_and_the_short_form():
    found = render(GENERAL)
    assert found.source is found.target is None and "### Input" not in found.text and found.text[slice(*found.completion)] == "Blau"
    assert "### Input" in render(ROW).text


def test_own_template():
    assert render(ROW, "<{input}> {instruction}").text == "<one> Translate this English text into German.eins"
    assert render(ROW, Template("{input}\n{output}\n#", None)).completion == (4, 10)
    with pytest.raises(UsageError, match="did you mean '{output}'"):
        Template("{input} {outptu}")


def test_wordings_draw():
    rows = Dataset.from_list([{"id": "0", "domain": "", "source": "a", "target": "b", "source_lang": "en", "target_lang": "de"}] * 200)
    drawn = translation_instructions(rows)["instruction"]
    assert len(set(drawn)) == len(WORDINGS)
    assert translation_instructions(rows.select(range(50)))["instruction"] == drawn[:50], "a row's wording depends on its number and the seed alone"
    assert translation_instructions(rows, wordings=("{target}!",))["instruction"][0] == "German!"


@pytest.mark.parametrize("wording", WORDINGS)
def test_mirroring_swaps_names(wording):
    row = {**ROW, "instruction": wording.format(source="English", target="German")}
    assert mirror_row(row)["instruction"] == wording.format(source="German", target="English")
    assert mirror_row(mirror_row(row)) == {**row}


def test_mirroring_awkward_names():
    row = {**ROW, "instruction": "From Chinese to Chinese (Traditional).", "source_lang": "zh", "target_lang": "zh-Hant"}
    assert mirror_row(row)["instruction"].startswith("From Chinese (Traditional) to Chinese")
    assert mirror_row({**ROW, "instruction": "Bitte übersetzen"})["instruction"] == WORDINGS[0].format(source="German", target="English")


PARALLEL = {"id": "0", "domain": "", "source": "a", "target": "b"}


@pytest.mark.parametrize("asked_in", ["source", "target"])
def test_every_default_language_is_asked_in_itself_and_mirrored(asked_in):
    assert set(REQUESTS) == set(DEFAULT_LANGUAGES)
    pairs = [(source, target) for source in DEFAULT_LANGUAGES for target in DEFAULT_LANGUAGES if source != target]
    for seed in range(4):
        asked = translation_instructions(Dataset.from_list([{**PARALLEL, "source_lang": source, "target_lang": target} for source, target in pairs]), seed, request_language=asked_in)
        english = translation_instructions(Dataset.from_list([{**PARALLEL, "source_lang": source, "target_lang": target} for source, target in pairs]), seed)
        for row, plain in zip(asked, english):
            assert "{" not in row["instruction"]
            assert (row["instruction"] == plain["instruction"]) <= (row[f"{asked_in}_lang"] == "en")
            twin = mirror_row(row)
            assert twin["instruction"] != row["instruction"] and mirror_row(twin) == row


def test_a_language_without_wordings_is_asked_in_english_and_counted(caplog):
    rows = Dataset.from_list([{**PARALLEL, "source_lang": "en", "target_lang": code} for code in ("jv", "de", "yo", "jv")])
    asked = translation_instructions(rows, request_language="target")["instruction"]
    assert "Javanese" in asked[0] and "Englisch" in asked[1] and "3 requests are in English: no wording in jv, yo" in caplog.text
    own = translation_instructions(rows, request_language="target", wordings={"jv": ["{source} > {target}"]})
    assert own["instruction"][0] == "Inggris > Jawa" and mirror_row(own[0])["instruction"] == "Jawa > Inggris"


def test_request_language_is_checked():
    rows = Dataset.from_list([{**PARALLEL, "source_lang": "en", "target_lang": "de"}])
    with pytest.raises(UsageError, match="did you mean 'target'"):
        translation_instructions(rows, request_language="targt")
    with pytest.raises(UsageError, match="by language"):
        translation_instructions(rows, wordings=("{source}{target}",), request_language="source")


def test_load_instructions(tmp_path, caplog):
    path = write(tmp_path / "i.jsonl", GENERAL, {**GENERAL, "lang": "eng", "input": None}, ROW, {**GENERAL, "output": " "})
    rows = load_instructions(path)
    assert rows["lang"] == ["de", "en", "de"] and rows["source_lang"] == [None, None, "en"] and "left out 1 rows" in caplog.text
    assert load_instructions(path, languages=["en"])["lang"] == ["en"]
    assert len(concatenate_datasets([rows, load_instructions(demo_instructions(), ["sw"], split="train")])) > len(rows)
    with pytest.raises(UsageError, match="unknown language 'fr'"):
        load_instructions(path, languages=["fr"])


def test_messages(tmp_path):
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Name a colour."}, {"role": "assistant", "content": "Blue"}]
    row = load_instructions(write(tmp_path / "c.jsonl", {"messages": chat}), languages=["en"])[0]
    assert (row["instruction"], row["output"], row["lang"]) == ("Be brief.\n\nName a colour.", "Blue", "en")
    with pytest.raises(InputError, match="c.jsonl, row 1, field 'messages': roles are 'user', 'assistant', 'user', 'assistant'"):
        load_instructions(write(tmp_path / "c.jsonl", {"messages": chat[1:] * 2, "lang": "en"}))


@pytest.mark.parametrize("row, message", [({"output": "x", "lang": "en"}, "field 'instruction'"), ({**GENERAL, "lang": None}, "field 'lang': missing"), ({**GENERAL, "lang": "jp"}, "field 'lang': unknown language"), ({**GENERAL, "input": 3}, "field 'input': expected text, got int")])
def test_broken_rows_are_named(tmp_path, row, message):
    with pytest.raises(InputError, match=f"i.jsonl, row 2, {message}"):
        load_instructions(write(tmp_path / "i.jsonl", GENERAL, row))
