"""The filters of one pair and what they are made of, on their own."""
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignx.data.filters import LengthNorm, digit_counts, expansion, fingerprint, has_control_characters, has_different_digits, has_markup, has_odd_lengths
from alignx.data.filters import is_identical, length_norm, odd_lengths
from alignx.data.identification import has_wrong_language, has_wrong_script, language_probability, language_scripts, script_counts, script_share

DIGITS = "٣৩３३๓3"


def test_fingerprint_keeps_what_matters():
    assert fingerprint("ＡＢＣ　ｄ") == fingerprint("abc D") and fingerprint("Straße") == fingerprint("STRASSE")
    assert fingerprint("é") == fingerprint("e\u0301") and fingerprint("resume") != fingerprint("résumé")


@given(st.text())
def test_fingerprint_of_a_respaced_text_is_the_same(text):
    assert fingerprint(f"  {text}\n") == fingerprint(text) and is_identical(text, f"\t{text} ")


def test_expansion_is_weighted_and_robust():
    assert expansion(["a" * 100, "b"], ["c" * 30, "d" * 9]) == 0.3
    assert expansion(["a" * 10] * 9 + ["a" * 10], ["b" * 20] * 9 + ["b" * 1000]) == 2.0
    assert expansion([], []) == expansion([""], ["x"]) == 1.0
    assert not has_odd_lengths("x" * 100, "y" * 30, 0.3, 1.01) and has_odd_lengths("x" * 100, "y" * 100, 0.3, 2)


def test_spread_is_robust_and_bounded():
    random = np.random.default_rng(0)
    source = random.integers(40, 200, 1000)
    target = np.round(source * 1.2 * np.exp(random.normal(0, 0.15, 1000)))
    clean = length_norm(source, target)
    spoilt = length_norm(source, np.where(np.arange(1000) % 8 == 0, target // 4, target))
    assert clean.spread == pytest.approx(0.14, abs=0.015) and spoilt.spread < 1.25 * clean.spread
    assert length_norm(source, source).spread == 0.08, "a corpus of one template does not make the limit nothing"
    assert length_norm(source[:50], target[:50]).spread == float("inf"), "too few pairs to tell"


def test_the_tighter_of_ratio_and_spread_decides():
    assert odd_lengths([100], [200], LengthNorm(1.0, 0.1, 500)).all() and not odd_lengths([100], [200], LengthNorm(1.0)).any()
    assert odd_lengths([100], [400], LengthNorm(1.0, 5.0, 500)).all(), "a corpus of noise does not lift the ratio"


def test_digits_of_every_script_have_their_value():
    assert digit_counts(DIGITS) == {3: len(DIGITS)}
    for digit in DIGITS:
        assert not has_different_digits(f"version {digit}", "version 3") and has_different_digits(f"version {digit}", "version 4")


@given(st.text(alphabet="0123456789 .,abc"), st.sampled_from("٠०０๐"))
def test_the_same_number_in_another_script_or_order_agrees(text, zero):
    other = "".join(chr(ord(zero) + int(character)) if character.isdecimal() else character for character in reversed(text))
    assert not has_different_digits(text, other)


def test_numbers_that_may_differ():
    for source, target in (("two files", "2 Dateien"), ("the 1990s", "die 90er"), ("10,000", "1万"), ("3 May 1999", "1999-05-3"), ("five", "5")):
        assert not has_different_digits(source, target), (source, target)
    assert has_different_digits("call 555 123 456", "rufen Sie an"), "many digits are missing"
    assert not has_different_digits("call 555 123 456", "rufen Sie an", max_missing=None)


def test_markup_and_control_characters():
    for text in ("x < y > z", "R&D", "AT&T;", "a <- b", "<3", "1 & 2; 3"):
        assert not has_markup(text, "nichts davon") or "&" in text and text == "AT&T;", text
    for text in ("<b>x</b>", "a<br/>", '<a href="x">', "&nbsp;", "&#160;", "&#xA0;"):
        assert has_markup(text, "nichts davon") and not has_markup(text, text), text
    for sound in ("👩\u200d🔬", "می\u200cخواهم", "\u200fشلوم", "a\tb\r\n", "soft\u00adhyphen"):
        assert not has_control_characters(sound, sound), sound
    for bad in ("\x00", "\x1b[0m", "\ufffd", "\ue000", "Ã¼ber\x84"):
        assert has_control_characters("sound", bad), bad


@given(st.text(alphabet=st.characters(categories=["L", "M", "N", "P", "Zs"])))
def test_letters_marks_numbers_and_punctuation_are_never_control_characters(text):
    assert not has_control_characters(text, text)


def test_scripts_of_languages():
    assert language_scripts("zh-Hant") >= {"Hani"} and language_scripts("ko") == {"Hang", "Hani"} and language_scripts("hi") == {"Deva"}
    assert language_scripts("uz") == {"Latn", "Cyrl", "Arab"} and language_scripts("sr-Cyrl") == {"Cyrl"}
    assert script_share("12:30 🎉!", "ar") == 1.0 and script_share("καλημέρα", "el") == 1.0 and script_share("good day", "el") == 0.0


@given(st.text())
def test_script_counts_are_of_letters_that_have_one(text):
    assert script_counts(text).total() <= sum(not unicodedata.category(character).startswith(("Z", "C")) for character in text) + text.count("\u200c") + len(text)
    assert 0.0 <= script_share(text, "ja") <= 1.0


def test_foreign_words_are_no_wrong_script():
    assert not has_wrong_script("Run make install now", "现在运行 make install", "en", "zh")
    assert not has_wrong_script("USB", "USB!", "en", "ru")
    assert has_wrong_script("Save all files", "Save all the files", "en", "th")


def test_language_is_asked_only_where_it_can_be_told():
    text = "Der Hund schläft im Garten hinter dem Haus."
    assert language_probability(text, "de", ("en", "fr")) > 0.9 > 0.05 > language_probability(text, "fr", ("en", "de"))
    assert has_wrong_language("The dog sleeps in the garden.", text, "en", "fr", languages=("de",))
    assert not has_wrong_language("The dog sleeps in the garden.", text[:12], "en", "fr", languages=("de",)), "too short to tell"
    assert language_probability(text, "tlh", ("en",)) == 1.0, "an unknown language is not judged"


def test_norwegian_filipino_and_regions_are_known():
    assert language_probability("Jeg vet ikke hva det er, men det er ikke noe for meg.", "nb", ("en", "fi")) > 0.9
    assert language_probability("Hindi ko alam kung ano ang gagawin ko ngayong araw.", "fil", ("en", "es")) > 0.9
    assert language_probability("Eu não sei o que é isso, mas não é para mim.", "pt-BR", ("en", "tr")) > 0.9
