import gzip
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignx.data import DEFAULT_LANGUAGES, find_language, language_id, language_name, language_script, normalize_language
from alignx.demo import demo_corpus
from alignx.errors import UsageError

FLORES = {"zho_Hans": "zh", "zho_Hant": "zh-Hant", "arb_Arab": "ar", "swh_Latn": "sw", "pes_Arab": "fa", "npi_Deva": "ne", "zsm_Latn": "ms", "lvs_Latn": "lv", "ekk_Latn": "et",
          "khk_Cyrl": "mn", "azj_Latn": "az", "uzn_Latn": "uz", "als_Latn": "sq", "nob_Latn": "nb", "yue_Hant": "yue", "arz_Arab": "arz", "srp_Cyrl": "sr", "por_Latn": "pt", "tgl_Latn": "fil", "kor_Hang": "ko"}


@pytest.mark.parametrize("given_tag, expected", FLORES.items())
def test_flores_codes(given_tag, expected):
    assert normalize_language(given_tag) == expected


@pytest.mark.parametrize("given_tag, expected", {"EN": "en", " en ": "en", "en_GB": "en-GB", "pt_BR": "pt", "pt-PT": "pt-PT", "iw": "he", "in": "id", "sh": "sr-Latn", "Swahili": "sw", "français": "fr"}.items())
def test_other_spellings(given_tag, expected):
    assert normalize_language(given_tag) == expected


def test_normal_form_is_stable_for_every_language_of_the_corpus():
    with gzip.open(demo_corpus(), "rt", encoding="utf-8") as file:
        codes = {code for line in file for code in json.loads(line)["text"]}
    normal = {code: normalize_language(code) for code in codes}
    assert all(normalize_language(code) == code for code in normal.values())
    assert {code: other for code, other in normal.items() if code != other} == {"tl": "fil"}
    assert len({language_id(code) for code in codes}) == len(codes) - 1


def test_names_and_scripts():
    assert len(DEFAULT_LANGUAGES) == 12
    assert (language_name("deu"), language_script("th"), language_script("zh-TW")) == ("German", "Thai", "Hant")


@settings(deadline=None)
@given(st.text(max_size=12))
def test_anything_else_is_a_usage_error(text):
    try:
        code = normalize_language(text)
    except UsageError:
        return
    assert normalize_language(code) == code


@pytest.mark.parametrize("tag", ["und", "mul", "zxx", "mis", "", "x" * 10_000, "\0", "en\0", "no such language"])
def test_what_is_no_language(tag):
    assert find_language(tag) is None
    with pytest.raises(UsageError, match="unknown language") as caught:
        normalize_language(tag)
    assert len(str(caught.value)) < 400


def test_ids_depend_on_the_code_alone():
    assert language_id("en") == 1935262018, "a stored number would mean another language"
    assert language_id(None) == -1 and 0 <= language_id("zh") < 2**31
    with pytest.raises(UsageError, match="row 3"):
        normalize_language("jp", where="x.jsonl, row 3")
