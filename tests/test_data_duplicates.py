"""Keys, shingles, MinHash, near duplicates and the evaluation index."""
import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from alignx.data.duplicates import EvaluationIndex, band_keys, crowded, mix, near_duplicates, repeats, shingles, signatures, similarity, text_key

WORDS = "river stone window garden candle letter market winter silver bridge forest hammer island jacket kitchen lantern meadow needle orange pepper".split()


def sentence(random, size=14):
    return " ".join(random.choice(WORDS, size))


def test_keys_are_fixed_and_of_a_language():
    assert text_key("Human rights", "en") == text_key(" human  RIGHTS", "en") == 12637926640752408903 or text_key("Human rights", "en") < 2**64
    assert text_key("die", "en") != text_key("die", "de")


def test_mixing_depends_on_all_and_on_their_order():
    numbers = np.arange(50, dtype=np.uint64)
    assert len(np.unique(mix(numbers, numbers))) == 50
    assert (mix(numbers[1:], numbers[:-1]) != mix(numbers[:-1], numbers[1:])).all()


@given(st.lists(st.integers(0, 5)))
def test_repeats_keep_the_first(values):
    keys = np.array(values, dtype=np.uint64)
    assert [value for value, again in zip(values, repeats(keys)) if not again] == list(dict.fromkeys(values))
    assert crowded(keys, 2).tolist() == [values.count(value) > 2 for value in values]


@settings(deadline=None)
@given(st.text(), st.text())
def test_similarity_is_that_of_sets(first, second):
    def pieces(text):
        data = " ".join(__import__("unicodedata").normalize("NFKC", text).casefold().split()).encode("utf-8", "surrogatepass")
        return {data[place : place + 8] for place in range(len(data) - 7)}

    ours, theirs = pieces(first), pieces(second)
    expected = len(ours & theirs) / len(ours | theirs) if ours and theirs else 0.0
    assert similarity(shingles(first), shingles(second)) == pytest.approx(expected)
    assert len(shingles(first)) == len(ours)


@settings(deadline=None)
@given(st.lists(st.text(max_size=30), min_size=1, max_size=8))
def test_a_signature_does_not_depend_on_its_batch(texts):
    together, counts = signatures(texts, ["en"] * len(texts))
    for row, text in enumerate(texts):
        alone, count = signatures([text], ["en"])
        assert (alone[0] == together[row]).all() and count[0] == counts[row]


def test_signatures_estimate_the_similarity():
    random, gaps = np.random.default_rng(0), []
    for _ in range(60):
        words = sentence(random, 20).split()
        other = [random.choice(WORDS) if random.random() < 0.15 else word for word in words]
        first, second = " ".join(words), " ".join(other)
        values, _ = signatures([first, second], ["en", "en"])
        gaps.append((values[0] == values[1]).mean() - similarity(shingles(first), shingles(second)))
    assert abs(np.mean(gaps)) < 0.03 and np.abs(gaps).max() < 0.4, "32 hash functions: a standard error of 0.09 at most each"


def pair_rows(*pairs):
    rows = Dataset.from_list([{"source": source, "target": target} for source, target in pairs])
    smallest = [signatures(rows[side], [code] * len(rows))[0] for side, code in (("source", "en"), ("target", "de"))]
    return rows, band_keys(np.minimum(*smallest))


def test_both_sides_have_to_be_near():
    random = np.random.default_rng(1)
    one, other = sentence(random), sentence(random)
    rows, bands = pair_rows((one, other), (one, sentence(random)), (f"{one}!", other), (sentence(random), other))
    assert near_duplicates(rows, bands, np.ones(4, dtype=bool)).tolist() == [False, False, True, False]
    assert not near_duplicates(rows, bands, np.array([True, True, False, True])).any(), "rows that are not allowed are neither dropped nor a reason"


def test_a_line_repeated_many_times_goes_but_once():
    random = np.random.default_rng(2)
    lines = [(f"{' '.join(WORDS)} number {index}", f"{' '.join(reversed(WORDS))} nummer {index}") for index in range(300)]
    others = [(sentence(random), sentence(random)) for _ in range(300)]
    rows, bands = pair_rows(*[pair for both in zip(lines, others) for pair in both])
    dropped = near_duplicates(rows, bands, np.ones(600, dtype=bool))
    assert dropped[0::2].sum() == 299 and not dropped[1::2].any()


def test_evaluation_index_is_by_language_and_knows_its_limits():
    random = np.random.default_rng(3)
    text, short = sentence(random), "woman running"
    index = EvaluationIndex([{"source": text, "target": short, "source_lang": "en", "target_lang": "de"}])

    def near(candidate, code="en"):
        return index.is_near(candidate, band_keys(signatures([candidate], [code])[0])[0].tolist())

    assert near(f"{text}!") and not near(f"{text}!", "fr") and not near(sentence(random))
    assert not near("woman running!", "de"), "short sentences are compared exactly only"
    keys = np.array([text_key(short.upper(), "de"), text_key(short, "en"), text_key("woman swimming", "de")], dtype=np.uint64)
    assert index.holds(keys).tolist() == [True, False, False]
    assert not EvaluationIndex(()).holds(keys).any()
