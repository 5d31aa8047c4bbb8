"""Similarity metrics against double loops in float64, and the controls that a sceptic asks for."""
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignx.errors import InputError, UsageError
from alignx.evaluate.similarity import auc_score, mexa_layers, mexa_score, neighbourhood_overlap, retrieval_accuracy, sentence_scores


def cosine(x, y):
    return float(np.dot(x, y) / np.sqrt(np.dot(x, x) * np.dot(y, y)))


def naive_auc(a, b):
    values = []
    for i in range(len(a)):
        own, total = cosine(a[i], b[i]), 0
        for j in range(len(a)):
            if j != i:
                for other in (cosine(a[i], b[j]), cosine(a[j], b[i])):
                    total += 0.5 if abs(other - own) < 1e-12 else other < own
        values.append(total / (2 * (len(a) - 1)))
    return values


def naive_overlap(a, b, k):
    shares = []
    for i in range(len(a)):
        near = [set(sorted((j for j in range(len(x)) if j != i), key=lambda j: -cosine(x[i], x[j]))[:k]) for x in (a, b)]
        shares.append(len(near[0] & near[1]) / k)
    return shares


def cone(count=60, width=48, noise=0.7, seed=0):
    "Vectors in a narrow cone, as in real decoders, and noisy copies; float32."
    generator = np.random.default_rng(seed)
    a = (generator.normal(size=(count, width)) + 20).astype(np.float32)
    return a, (a + noise * generator.normal(size=a.shape)).astype(np.float32)


@settings(max_examples=20, deadline=None)
@given(st.integers(3, 12), st.integers(2, 9), st.floats(0, 3), st.integers(0, 10**6))
def test_auc_and_overlap_against_their_definitions(count, width, noise, seed):
    generator = np.random.default_rng(seed)
    a = generator.normal(size=(count, width))
    b = a + noise * generator.normal(size=a.shape)
    np.testing.assert_allclose(sentence_scores(a, b)["auc"], naive_auc(a, b), atol=1e-12)
    np.testing.assert_allclose(sentence_scores(a, b)["cosine"], [cosine(x, y) for x, y in zip(a, b)], atol=1e-12)
    for k in (1, 10):
        np.testing.assert_allclose(neighbourhood_overlap(a, b, k), naive_overlap(a, b, min(k, (count - 1) // 2)), atol=1e-12)


@pytest.mark.parametrize("block_size", [1, 7, 60, 4096])
def test_no_score_depends_on_the_block_size(block_size):
    a, b = cone()
    b[5:9] = b[5]  # ties, which float32 products of different shapes would break
    whole = sentence_scores(a, b)
    for name, values in sentence_scores(a, b, block_size=block_size).items():
        np.testing.assert_array_equal(values, whole[name])
    assert not whole["forward"][5:9].any()
    np.testing.assert_array_equal(neighbourhood_overlap(a, b, block_size=block_size), neighbourhood_overlap(a, b))


def test_no_score_depends_on_the_order_of_sentences():
    a, b = cone()
    b[5:9], a[20:24] = b[5], a[20]
    order = np.random.default_rng(1).permutation(len(a))
    found, shuffled = sentence_scores(a, b), sentence_scores(a[order], b[order])
    for name in found:
        np.testing.assert_allclose(shuffled[name], found[name][order], atol=1e-12)
    np.testing.assert_allclose(neighbourhood_overlap(a[order], b[order]), neighbourhood_overlap(a, b)[order], atol=1e-12)


def test_shuffled_pairs_are_at_chance():
    generator, count, found = np.random.default_rng(0), 40, []
    a, b = cone(count, noise=0.1)
    for _ in range(200):
        other = b[generator.permutation(count)]
        scores = sentence_scores(a, other)
        found.append([scores[name].mean() for name in ("forward", "backward", "mexa", "auc", "margin")] + [neighbourhood_overlap(a, other).mean()])
    expected = [1 / count, 1 / count, 1 / count, 0.5, 0, 10 / (count - 1)]  # near copies find each other, so MEXA is as likely as retrieval
    error = np.std(found, 0) / np.sqrt(len(found))
    assert (np.abs(np.mean(found, 0) - expected) < 4 * error).all()


def test_independent_sentences_find_each_other_with_chance_one_in_2n_minus_1():
    generator, count = np.random.default_rng(0), 12
    found = [mexa_score(*generator.normal(size=(2, count, 200))) for _ in range(1500)]
    assert abs(np.mean(found) - 1 / (2 * count - 1)) < 4 * np.std(found) / np.sqrt(len(found))


def test_identical_sentences_score_one():
    a, _ = cone()
    scores = sentence_scores(a, a)
    assert all((scores[name] == 1).all() for name in ("forward", "backward", "mexa", "auc"))
    np.testing.assert_allclose(neighbourhood_overlap(a, a), 1)
    np.testing.assert_allclose(scores["cosine"], 1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_collapsed_space_finds_nothing(dtype):
    one = np.random.default_rng(0).normal(size=31).astype(dtype)
    a, b = (np.tile(one * scale, (50, 1)) for scale in (1, 3))
    scores = sentence_scores(a, b)
    assert not scores["forward"].any() and not scores["backward"].any() and not scores["mexa"].any()
    np.testing.assert_allclose(scores["auc"], 0.5)
    np.testing.assert_allclose(scores["margin"], 0, atol=1e-12)
    np.testing.assert_allclose(neighbourhood_overlap(a, b), 10 / 49)


def test_half_precision_and_mapped_input(tmp_path):
    a, b = (x.astype(np.float16) for x in cone())
    np.save(tmp_path / "a.npy", a)
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    for name, values in sentence_scores(mapped, b).items():
        np.testing.assert_array_equal(values, sentence_scores(a.astype(float), b.astype(float))[name])


def test_numbers_that_are_none_are_refused():
    a, b = cone()
    b[7, 3] = np.nan
    for function in (sentence_scores, neighbourhood_overlap):
        with pytest.raises(InputError, match="sentence 7"):
            function(a, b)


def test_a_corpus_of_one_sentence_is_refused_and_of_two_has_no_neighbourhood():
    a, b = cone()
    for function in (sentence_scores, retrieval_accuracy, auc_score, neighbourhood_overlap):
        with pytest.raises(InputError, match="at least 2"):
            function(a[:1], b[:1])
    assert np.isnan(neighbourhood_overlap(a[:2], b[:2])).all()


def test_mexa_over_layers():
    layers = [cone(noise=noise, seed=seed) for seed, noise in enumerate((0.5, 1.5, 3))]
    a, b = map(np.stack, zip(*layers))
    scores = [mexa_score(*layer) for layer in layers]
    assert mexa_layers(a, b) == pytest.approx(sum(scores) / 3) and mexa_layers(a, b, "max") == max(scores)
    assert mexa_layers(a, b, weights=[1, 0, 3]) == pytest.approx((scores[0] + 3 * scores[2]) / 4)
    with pytest.raises(UsageError, match="way to sum up layers"):
        mexa_layers(a, b, "median")
    for case in (dict(weights=[1, 2]), dict(weights=[0, 0, 0]), dict(how="max", weights=[1, 1, 1])):
        with pytest.raises(UsageError, match="weights"):
            mexa_layers(a, b, **case)


def test_large_sets_are_never_held_twice_and_score_the_same(monkeypatch):
    from alignx.evaluate import similarity

    a, b = cone()
    whole, overlap, seen = sentence_scores(a, b), neighbourhood_overlap(a, b), []
    unit_rows = similarity._unit_rows
    monkeypatch.setattr(similarity, "HELD", 0)
    monkeypatch.setattr(similarity, "_unit_rows", lambda vectors, start, stop, device: seen.append(stop - start) or unit_rows(vectors, start, stop, device))
    for name, values in sentence_scores(a, b, block_size=16).items():
        np.testing.assert_allclose(values, whole[name], atol=1e-12)
    assert seen.count(16) == 3 * (1 + 4)  # 60 sentences: three full blocks of rows, and all columns again for each of the four blocks of rows
    np.testing.assert_allclose(neighbourhood_overlap(a, b, block_size=16), overlap, atol=1e-12)
