"""Projection as a figure: one pair of axes, labels that cover nothing, and UMAP where it is installed."""
import builtins
import warnings

import numpy as np
import pytest

from alignx.data.languages import DEFAULT_LANGUAGES
from alignx.errors import InputError, UsageError
from alignx.explore import joint_projection, projection_panels
from alignx.explore.figures import covered, readable, readable_names, to_png, to_svg


def made_up(models=2, layers=5, groups=10, codes=("en", "de", "sw", "ar"), seed=0):
    random = np.random.default_rng(seed)
    plane = random.normal(size=(models, layers, groups, len(codes), 2)) + 0.3 * random.normal(size=(1, 1, 1, len(codes), 2))
    return plane.reshape(models, layers, -1, 2), random.uniform(0.1, 0.4, (models, layers)), list(codes) * groups, [g for g in range(groups) for _ in codes]


def test_all_panels_have_the_same_axes_and_hold_every_point():
    plane, shares, languages, ids = made_up()
    figure = projection_panels(plane, shares, languages, ids, joined=[1])
    assert len(figure.axes) == 2 * 4
    assert len({axis.get_xlim() + axis.get_ylim() for axis in figure.axes}) == 1
    drawn = np.concatenate([dots.get_offsets() for dots in figure.axes[0].collections])
    assert np.allclose(sorted(map(tuple, drawn)), sorted(map(tuple, plane[0, 0])))
    (left, right), (bottom, top) = figure.axes[0].get_xlim(), figure.axes[0].get_ylim()
    assert left < plane[..., 0].min() and right > plane[..., 0].max() and bottom < plane[..., 1].min() and top > plane[..., 1].max()


@pytest.mark.parametrize("count", [2, 12, 24])
def test_labels_of_crowded_languages_cover_nothing(count):
    codes = [*DEFAULT_LANGUAGES, "zh-Hant", "pt-BR", "sr-Latn", "hi", "ta", "id", "fa", "uk", "ko", "it", "nl", "pl"][:count]
    plane, shares, languages, ids = made_up(codes=codes)
    figure = projection_panels(0.01 * plane + (np.arange(len(languages)) == 0)[:, None] * 3, shares, languages, ids, models=["base", "x" * 60], show=[0, 4])
    assert covered(figure) == []
    for axis in figure.axes:
        assert {text.get_text() for text in axis.texts if text.get_text()} == set(codes)


def test_words_that_lie_on_each_other_are_found():
    figure = projection_panels(*made_up()[:3], show=[0])
    assert covered(figure) == []
    figure.axes[0].text(0.5, 0.5, "one", transform=figure.axes[0].transAxes)
    figure.axes[0].text(0.5, 0.5, "two", transform=figure.axes[0].transAxes)
    figure.text(0.99, 0.5, "beyond the edge")
    found = covered(figure)
    assert ("two", "one") in found and ("beyond the edge", "edge") in found


def test_one_layer_is_a_small_picture_even_of_two_thousand_points():
    plane, shares, languages, _ = made_up(groups=170, codes=DEFAULT_LANGUAGES)
    figure = projection_panels(plane[1:], shares[1:], languages, show=[3], width=4)
    assert len(languages) > 2000 and len(to_png(figure)) < 60_000
    assert to_svg(figure) == to_svg(projection_panels(plane[1:], shares[1:], languages, show=[3], width=4))


def test_nan_shares_gaps_and_hostile_names():
    plane, shares, languages, ids = made_up()
    plane[0, 1, :4] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = projection_panels(plane, np.full_like(shares, np.nan), languages, ids, models=["$\\frac{", "_<b>\n中文𓀀"], joined=[0, 1])
        to_svg(figure)
    assert not any("variance" in axis.get_xlabel() for axis in figure.axes)


def test_wrong_input_is_named():
    plane, shares, languages, ids = made_up()
    cases = [(dict(plane=plane[0]), "plane: expected"), (dict(shares=shares[0]), "shares: expected"), (dict(languages=languages[1:]), "languages: 39"), (dict(show=[9]), "unknown layer 9"),
             (dict(joined=[99]), "unknown id 99"), (dict(plane=plane * np.nan), "not one of its coordinates"), (dict(models=["one"]), "models: 1 given"), (dict(layers=[1]), "layers: 1 given"), (dict(show=[]), "no layer")]
    for change, message in cases:
        with pytest.raises(InputError, match=message):
            projection_panels(**{**dict(plane=plane, shares=shares, languages=languages, ids=ids), **change})


def test_names_stay_apart_and_within_their_limit():
    names = [f"organisation/{'a' * 50}{n}{'b' * 50}" for n in range(12)] + ["", " ", "ok"]
    written = readable_names(names)
    assert len(set(written.values())) == len(names) and max(map(len, written.values())) <= 34 and written["ok"] == "ok"
    assert readable("a\nb\u202ec") == "a bc"


def test_umap_is_one_picture_for_all_layers_and_the_same_each_time():
    pytest.importorskip("umap")
    random = np.random.default_rng(0)
    centres = 5 * random.normal(size=(3, 8))
    states = (centres[np.arange(30) % 3] + 0.1 * random.normal(size=(2, 30, 8))).astype("float32")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        plane, shares = joint_projection({"a": states}, method="umap")
    assert plane.shape == (1, 2, 30, 2) and np.isnan(shares).all() and np.isfinite(plane).all()
    assert np.array_equal(plane, joint_projection({"a": states}, method="umap")[0])
    middles = np.stack([plane[0, :, n::3].reshape(-1, 2).mean(0) for n in range(3)])
    nearest = np.linalg.norm(plane[0][:, :, None] - middles, axis=-1).argmin(-1)
    assert (nearest == np.arange(30) % 3).all()
    for few in (states[:1, :1], states[:1, :2], states[:1, :3], states[:1, :4], np.zeros_like(states)):
        assert np.isfinite(joint_projection({"a": few}, method="umap")[0]).all()


def test_umap_missing_says_what_to_install(monkeypatch):
    real = builtins.__import__

    def without(name, *rest, **more):
        if name == "umap":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UsageError, match=r"pip install 'alignx\[umap\]'"):
        joint_projection({"a": np.ones((1, 20, 3))}, method="umap")
    with pytest.raises(UsageError, match="did you mean 'umap'"):
        joint_projection({"a": np.ones((1, 20, 3))}, method="umpa")
