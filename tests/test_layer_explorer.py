"""The explorer's numbers against plain references, its input checks, and its page in a real browser without a network."""
import base64
import json
import os
import shutil
import time
import zlib

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignx.errors import InputError, UsageError
from alignx.explore import LayerExplorer, joint_projection, nearest_neighbours, translation_ranks
from alignx.explore.explorer_data import rank_code
from alignx.explore.projection import comparable_layer

LANGUAGES = ["en", "de", "sw", "ar"]
HOSTILE = "</script><script>window.hacked = 1</script><img src=x onerror=window.hacked=1>"


def made_up(layers=5, groups=12, width=16, seed=0, strength=2.0):
    "Embeddings whose languages stand apart at the ends and share meaning in the middle, with texts, languages, ids."
    random = np.random.default_rng(seed)
    language, meaning = random.normal(size=(1, 4, width)), random.normal(size=(groups, 1, width))
    share = np.sin(np.linspace(0, np.pi, layers)).reshape(-1, 1, 1, 1)
    states = 5 + (1.2 - share) * 3 * language + share * strength * meaning + 0.4 * random.normal(size=(layers, groups, 4, width))
    texts = [f"{code} sentence {g}" for g in range(groups) for code in LANGUAGES]
    texts[0], texts[3] = HOSTILE, "كل الناس أحرار"
    return states.reshape(layers, -1, width).astype("float32"), texts, LANGUAGES * groups, [g for g in range(groups) for _ in LANGUAGES]


def unpacked(text, dtype="uint8"):
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), dtype)


# ---- numbers --------------------------------------------------------------------------------------------------------
def test_projection_is_the_principal_plane_of_all_layers_and_models():
    a, b = made_up()[0], made_up(seed=1)[0]
    plane, share = joint_projection({"a": a, "b": b})
    points = np.concatenate([comparable_layer(layer.astype("float64")) for layer in [*a, *b]])
    axes = np.linalg.svd(points, full_matrices=False)[2][:2]
    reference = (points @ axes.T).reshape(plane.shape)
    assert np.allclose(np.abs(plane), np.abs(reference), atol=1e-3)
    assert np.allclose(share, (reference**2).sum((2, 3)) / plane.shape[2], atol=1e-4)


def test_projection_does_not_depend_on_the_scale_or_centre_of_a_layer():
    states = made_up()[0]
    longer = states * np.array([1, 10, 100, 3, 0.01], dtype="float32").reshape(-1, 1, 1)
    assert np.allclose(joint_projection({"a": states})[0], joint_projection({"a": longer})[0], atol=1e-4)


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 40), st.integers(1, 6), st.integers(0, 10_000))
def test_neighbours_against_a_full_sort(sentences, width, seed):
    states = np.random.default_rng(seed).normal(size=(sentences, width))
    index, cosine = nearest_neighbours(states, min(5, sentences - 1))
    unit = states / np.linalg.norm(states, axis=1, keepdims=True)
    full = unit @ unit.T
    for i in range(sentences):
        others = sorted((full[i, j] for j in range(sentences) if j != i), reverse=True)
        assert np.allclose(cosine[i], others[: len(cosine[i])]) and np.allclose(full[i, index[i]], cosine[i])
        assert i not in index[i] and len(set(index[i])) == len(index[i])


def test_neighbours_across_chunks():
    states = np.random.default_rng(0).normal(size=(1500, 8)).astype("float32")
    index, _ = nearest_neighbours(states, 1)
    unit = states / np.linalg.norm(states, axis=1, keepdims=True)
    full = unit @ unit.T - 3 * np.eye(1500, dtype="float32")
    assert (index[:, 0] == full.argmax(1)).mean() > 0.999


def test_ranks_against_loops():
    states, _, languages, ids = made_up(groups=7, strength=0.3)
    keep = [i for i in range(len(ids)) if (ids[i], languages[i]) not in {(3, "en"), (5, "sw")}]
    states, languages, ids = states[1, keep], [languages[i] for i in keep], [ids[i] for i in keep]
    ranks = translation_ranks(states, languages, ids, "en")
    unit = states.astype("float64") / np.linalg.norm(states, axis=1, keepdims=True)
    for i, (language, key) in enumerate(zip(languages, ids)):
        mate = [j for j in range(len(ids)) if languages[j] == "en" and ids[j] == key]
        if language == "en" or not mate:
            assert (ranks[:, i] == 0).all()
            continue
        own = unit[i] @ unit[mate[0]]
        same, english = ([j for j in range(len(ids)) if languages[j] == code] for code in (language, "en"))
        assert ranks[0, i] == sum(unit[mate[0]] @ unit[j] >= own - 1e-9 for j in same)
        assert ranks[1, i] == sum(unit[i] @ unit[j] >= own - 1e-9 for j in english)
    assert ranks.max() > 1


def test_a_model_that_maps_all_to_one_point_ranks_last_and_stays_finite():
    _, texts, languages, ids = made_up()
    explorer = LayerExplorer(np.ones((2, len(texts), 4), "float32"), texts, languages, ids)
    assert explorer.data["retrieval"]["models"][0]["mean"] == [0.0, 0.0]
    assert "NaN" not in explorer.to_html().split('id="state"')[1].split("</script>")[0]


def test_what_is_packed_comes_back():
    states, texts, languages, ids = made_up()
    models = {"base": states, "aligned": made_up(seed=3)[0]}
    data = LayerExplorer(models, texts, languages, ids, neighbours=4).data
    L, S, near = 5, len(texts), data["neighbours"]
    low, high = unpacked(data["coordinates"]).reshape(2, -1).astype("uint16")
    grid = (low | (high << 8)).view("int16").reshape(2, 2, L, S).cumsum(2, dtype="int16")
    plane = joint_projection(models)[0]
    assert np.abs(grid.transpose(1, 2, 3, 0) * np.abs(plane).max() / 2047 - plane).max() < 2e-3
    codes, fresh = unpacked(near["codes"]).reshape(2, L, S, 4), iter(unpacked(near["fresh"], "<u2"))
    steps = unpacked(near["cosines"]).reshape(4, 2, L, S).cumsum(0, dtype="uint8")
    index = np.zeros(codes.shape, int)
    for at, code in np.ndenumerate(codes):
        index[at] = next(fresh) if code == 255 else index[at[0], at[1] - 1, at[2], code]
    for m, model in enumerate(models.values()):
        for layer in range(L):
            wanted, cosine = nearest_neighbours(model[layer], 4)
            smallest, largest = near["range"][m][layer]
            assert (index[m, layer] == wanted).all()
            assert np.abs(smallest + steps[:, m, layer].T / 127 * (largest - smallest) - cosine).max() < (largest - smallest) / 250 + 1e-4
    ranks = np.stack([[translation_ranks(layer, languages, ids, "en") for layer in model] for model in models.values()])
    assert (unpacked(data["ranks"]).reshape(2, 2, L, S).transpose(1, 2, 0, 3) == rank_code(ranks)).all()
    assert json.loads(unpacked(data["sentences"]).tobytes())["texts"] == texts


def test_rank_code_is_within_five_per_cent():
    ranks = np.arange(1, 60_000)
    codes = rank_code(ranks).astype(float)
    shown = np.where(codes <= 32, codes, 32 * 2 ** ((codes - 32) / 8))
    assert (np.abs(shown - ranks) / ranks).max() < 0.05 and (np.diff(codes) >= 0).all()


# ---- the strip ------------------------------------------------------------------------------------------------------
def test_retrieval_from_the_sentences_is_what_evaluate_measures():
    from alignx.evaluate import retrieval_accuracy

    states, texts, languages, ids = made_up(strength=0.5)
    curves = LayerExplorer(states, texts, languages, ids).data["retrieval"]["models"][0]["languages"]
    side = {code: states[:, np.array(languages) == code] for code in LANGUAGES}
    for code in LANGUAGES[1:]:
        both = [(retrieval_accuracy(a, b) + retrieval_accuracy(b, a)) / 2 for a, b in zip(side["en"], side[code])]
        assert np.allclose(curves[code], both, atol=1e-3)


def table(models=("base",), layers=range(5)):
    rows = [(m, k, s, t, metric, v, v, v) for m in models for k in layers for s, t, v in [("en", "de", 0.2 + k / 10), ("de", "en", 0.4), ("de", "sw", 1.0)] for metric in ("retrieval_top1", "mexa")]
    return pd.DataFrame(rows, columns=["model", "layer", "source_lang", "target_lang", "metric", "value", "low", "high"])


def test_retrieval_from_a_table():
    states, texts, languages, ids = made_up()
    explorer = LayerExplorer({"base": states}, texts, languages, ids, retrieval=table(layers=[0, 1, 2, 4]))
    assert explorer.data["retrieval"]["models"][0] == {"languages": {"de": [0.3, 0.35, 0.4, None, 0.5]}, "mean": [0.3, 0.35, 0.4, None, 0.5]}
    assert explorer.layer == 4
    with pytest.raises(UsageError, match="'tuned'.*base"):
        LayerExplorer({"tuned": states}, texts, languages, ids, retrieval=table())


def test_retrieval_as_values_and_without_any():
    states, texts, languages, _ = made_up()
    assert LayerExplorer(states, texts, languages, retrieval=[0, 0.1, 0.9, 0.9, 0]).layer == 2
    assert LayerExplorer(states, texts, languages, layers=[2, 4, 6, 8, 10]).layer == 2
    assert LayerExplorer(states, texts, languages).data["retrieval"] is None
    with pytest.raises(InputError, match="5 values, one per layer"):
        LayerExplorer(states, texts, languages, retrieval=[0.5])


# ---- bad input ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "change, message",
    [
        (lambda a: a.update(embeddings=a["embeddings"][0]), r"\[layers, sentences, width\], got float32 \[48, 16\]"),
        (lambda a: a.update(embeddings=a["embeddings"].astype(int)), "got int64"),
        (lambda a: a.update(embeddings={}), "no model"),
        (lambda a: a.update(embeddings={"a": a["embeddings"], "b": a["embeddings"][:3]}), "one shape"),
        (lambda a: a["embeddings"].__setitem__((3, 7, 2), np.nan), "layer 3, sentence 7: not finite"),
        (lambda a: a.update(texts=a["texts"][:-1]), "texts: 47 given for 48"),
        (lambda a: a.update(languages=a["languages"] + ["en"]), "languages: 49 given for 48"),
        (lambda a: a.update(ids=[0] * 48), "sentences 0 and 4 are both 0 in 'en'"),
        (lambda a: a["texts"].__setitem__(4, None), "texts, sentence 4: expected a string, got None"),
        (lambda a: a.update(layers=[1, 2]), "embeddings of 5 layers"),
        (lambda a: a.update(layers=[1, 2, 3, 4, 4]), "each layer once"),
        (lambda a: a.update(layer=5), "unknown layer 5"),
        (lambda a: a.update(layer=-1), "unknown layer -1"),
        (lambda a: a.update(pivot="fr"), "pivot: unknown language 'fr'"),
        (lambda a: a.update(neighbours=48), "from 1 to 47"),
        (lambda a: a.update(embeddings=a["embeddings"][:, :1], texts=["a"], languages=["en"], ids=[0]), "at least two"),
    ],
)
def test_bad_input_is_named(change, message):
    arguments = dict(zip(["embeddings", "texts", "languages", "ids"], made_up()))
    change(arguments)
    with pytest.raises(InputError, match=message):
        LayerExplorer(**arguments)


def test_state_can_be_set_and_refuses_what_does_not_exist():
    states, texts, languages, ids = made_up()
    explorer = LayerExplorer({"base": states, "tuned": states}, texts, languages, ids, layer=1)
    heard = []
    explorer.observe(lambda change: heard.append(change["new"]), "layer")
    explorer.layer, explorer.models_shown, explorer.hidden_languages, explorer.selected = 3, ["tuned"], ["de"], 47
    assert heard == [3]
    for name, value in {"layer": 5, "models_shown": ["other"], "hidden_languages": ["fr"], "selected": 48}.items():
        with pytest.raises(UsageError, match="unknown"):
            setattr(explorer, name, value)
    with pytest.raises(UsageError, match="at least one"):
        explorer.models_shown = []
    state = json.loads(explorer.to_html().split('id="state">')[1].split("</script>")[0])
    assert [state[name] for name in ("layer", "models_shown", "hidden_languages", "selected")] == [3, ["tuned"], ["de"], 47]


# ---- the page -------------------------------------------------------------------------------------------------------
def test_saving_is_all_or_nothing(tmp_path, monkeypatch):
    explorer = LayerExplorer(*made_up())
    path = explorer.save_html(tmp_path / "new folder" / "page.html")
    before = path.read_text(encoding="utf-8")
    explorer.layer = 0

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError):
        explorer.save_html(path)
    assert path.read_text(encoding="utf-8") == before and [p.name for p in path.parent.iterdir()] == ["page.html"]


def test_two_thousand_sentences_at_eighteen_layers_fit_into_400_kB():
    random = np.random.default_rng(0)
    states = random.normal(size=(18, 2000, 32)).astype("float32").cumsum(0) + 4 * random.normal(size=(2000, 32)).astype("float32")
    texts = [" ".join(random.choice(["peace", "freedom", "human", "right", "équité", "dignité"], 8)) for _ in range(2000)]
    explorer = LayerExplorer(states, texts, [LANGUAGES[i % 4] for i in range(2000)], [i // 4 for i in range(2000)])
    assert len(explorer.to_html().encode()) <= 400_000


BROWSERS = [path for name in ("chromium", "chromium-browser", "google-chrome", "chrome") if (path := shutil.which(name))]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if not BROWSERS:
        pytest.skip("no Chromium on this machine")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = BROWSERS[0]
    profile = tmp_path_factory.mktemp("profile")
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--no-first-run", "--window-size=1200,1000", f"--user-data-dir={profile}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    driver.execute_cdp_cmd("Network.enable", {})
    driver.execute_cdp_cmd("Network.emulateNetworkConditions", {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0})
    yield driver
    driver.quit()


class Page:
    "One explorer in the browser: what a reader can do with it, and what can be seen then."

    def __init__(self, driver, path, host="document.querySelector('.alignx-layer-explorer')"):
        self.driver, self.host = driver, host
        driver.get_log("browser"), driver.get_log("performance")
        driver.get(path.as_uri())
        self.wait("return host?.dataset.ready === 'true'")

    def js(self, code, *arguments):
        return self.driver.execute_script(f"const host = {self.host}, root = host?.shadowRoot; {code}", *arguments)

    def wait(self, code, wanted=True, seconds=8):
        end = time.time() + seconds
        while (value := self.js(code)) != wanted:
            assert time.time() < end, f"{code}: still {value!r}, not {wanted!r}; {self.driver.get_log('browser')}"
            time.sleep(0.03)

    def settle(self, layer):
        self.wait("return host.dataset.settled", str(layer))

    def find(self, selector):
        return self.js("return root.querySelector(arguments[0])", selector)

    def text(self, selector):
        return self.js("return root.querySelector(arguments[0])?.textContent ?? ''", selector)

    def picture(self):
        return self.js("return root.querySelector('canvas').toDataURL()")

    def keys(self, *keys):
        from selenium.webdriver.common.action_chains import ActionChains

        self.js("root.querySelector('.root').focus()")
        for key in keys:
            ActionChains(self.driver).send_keys(key).perform()

    def point(self, sentence, click=False, panel=0):
        "Move the pointer to a sentence, and click it if asked."
        from selenium.webdriver.common.action_chains import ActionChains

        x, y, width, height = self.js("const p = host.screenPositions()[arguments[1]], c = root.querySelectorAll('canvas')[arguments[1]]; return [p.x[arguments[0]], p.y[arguments[0]], c.clientWidth, c.clientHeight]", sentence, panel)
        canvas = self.js("return root.querySelectorAll('canvas')[arguments[0]]", panel)
        chain = ActionChains(self.driver).move_to_element_with_offset(canvas, round(x - width / 2), round(y - height / 2))
        (chain.click() if click else chain).perform()

    def clean(self):
        "Nothing was asked of the network, and nothing complained."
        assert self.driver.get_log("browser") == []
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        asked = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
        assert [url for url in asked if not url.startswith(("file:", "data:", "about:", "blob:"))] == []
        assert self.driver.execute_script("return window.hacked") is None


@pytest.fixture
def one(browser, tmp_path):
    states, texts, languages, ids = made_up()
    page = Page(browser, LayerExplorer(states, texts, languages, ids, layer=1).save_html(tmp_path / "one.html"))
    page.expected = nearest_neighbours(states[1], 8), texts, languages, ids
    yield page
    page.clean()


def test_layers_by_slider_keys_strip_and_play(one):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    before = one.picture()
    slider = one.find("input[type=range]")
    ActionChains(one.driver).move_to_element(slider).click_and_hold().move_by_offset(400, 0).release().perform()
    one.settle(4)
    assert one.picture() != before and "layer 4" in one.text(".now")
    one.keys(Keys.ARROW_LEFT)
    one.settle(3)
    one.keys(Keys.HOME)
    one.settle(0)
    ActionChains(one.driver).move_to_element(one.find(".strip")).click().perform()
    one.settle(2)
    one.keys(Keys.END)
    one.settle(4)
    assert one.picture() != before
    one.keys(Keys.ARROW_LEFT, Keys.ARROW_LEFT, Keys.ARROW_LEFT)
    one.settle(1)
    assert one.picture() == before
    one.keys(Keys.END, Keys.ARROW_LEFT, " ")
    one.settle(4)


def test_keys_do_not_reach_the_page_around(one):
    from selenium.webdriver.common.keys import Keys

    one.js("window.heard = []; document.addEventListener('keydown', (event) => window.heard.push(event.key))")
    one.keys(Keys.ARROW_RIGHT, Keys.ARROW_DOWN, "a")
    assert one.driver.execute_script("return window.heard") == ["a"]


def test_legend_hides_a_language(one):
    swahili = 2 + 4 * 7
    head = "return root.querySelector('.tip:not([hidden]) .text')?.textContent ?? ''"
    one.point(swahili)
    one.wait(head, "sw sentence 7")
    before = one.picture()
    one.find('[data-language="sw"]').click()
    one.wait("return root.querySelector('[data-language=\"sw\"]').getAttribute('aria-pressed')", "false")
    one.point(swahili)
    assert not one.js(head).startswith("sw") and one.picture() != before
    assert one.js("return [...root.querySelectorAll('.tip:not([hidden]) .text')].filter((node) => node.textContent.startsWith('sw')).length") == 0
    one.find('[data-language="sw"]').click()
    one.point(swahili)
    one.wait(head, "sw sentence 7")


def test_pointing_shows_the_sentence_and_its_translations_as_text(one):
    one.point(0)
    one.wait("return root.querySelector('.tip').hidden", False)
    shown = one.js("return [...root.querySelectorAll('.tip .text')].map((node) => [node.textContent, node.dir])")
    _, texts, _, ids = one.expected
    assert shown[0][0] == HOSTILE and {text for text, _ in shown[1:]} == {texts[i] for i in range(1, len(ids)) if ids[i] == 0}
    assert {direction for _, direction in shown} == {"auto"}
    assert one.js("return root.querySelectorAll('img, .tip script').length") == 0


def test_clicking_shows_neighbours_of_the_original_space(one):
    (index, cosine), texts, languages, ids = one.expected
    one.point(0, click=True)
    one.wait("return root.querySelectorAll('.details .columns').length", 1)
    rows = one.js("return [...root.querySelectorAll('.details .columns > div:first-child .row')].map((row) => [row.querySelector('.text').textContent, row.querySelector('.number').textContent])")
    assert [text for text, _ in rows] == [texts[i] for i in index[0]]
    assert [number.startswith("✓") for _, number in rows] == [ids[i] == ids[0] for i in index[0]]
    assert np.allclose([float(number.strip("✓ ")) for _, number in rows], cosine[0], atol=0.01)
    ranks = one.js("return [...root.querySelectorAll('.details .columns > div:last-child .number')].map((node) => node.textContent)")
    assert len(ranks) == 3 and all(rank.isdigit() for rank in ranks)
    one.keys("\ue00c")  # escape
    one.wait("return root.querySelectorAll('.details .columns').length", 0)


def test_zoom_pan_and_reset(one):
    from selenium.webdriver.common.action_chains import ActionChains

    start = one.js("return host.screenPositions()[0].x")
    one.find('[aria-label="Zoom in"]').click()
    spread = one.js("return host.screenPositions()[0].x")
    assert np.ptp(spread) == pytest.approx(1.5 * np.ptp(start), rel=1e-3)
    ActionChains(one.driver).drag_and_drop_by_offset(one.find("canvas"), 40, 10).perform()
    assert np.subtract(one.js("return host.screenPositions()[0].x"), spread) == pytest.approx(40, abs=1.5)
    one.keys("0")
    assert one.js("return host.screenPositions()[0].x") == pytest.approx(start)


def test_two_models_share_one_picture(browser, tmp_path):
    states, texts, languages, ids = made_up()
    other = made_up(seed=3)[0]
    page = Page(browser, LayerExplorer({"base": states, "aligned": other}, texts, languages, ids, layer=2).save_html(tmp_path / "two.html"))
    assert page.js("return root.querySelectorAll('canvas').length") == 2
    plane = joint_projection({"base": states, "aligned": other})[0]
    drawn = page.js("return host.screenPositions()")
    slopes = [np.polyfit(plane[m, 2, :, 0], drawn[m]["x"], 1)[0] for m in range(2)]
    assert slopes[0] == pytest.approx(slopes[1], rel=1e-3) and slopes[0] > 0
    page.js("[...root.querySelectorAll('.bar button')].find((button) => button.textContent === 'aligned').click()")
    page.wait("return root.querySelectorAll('canvas').length", 1)
    page.wait("return host.screenPositions()[0].model", "aligned")
    page.clean()


def test_a_fragment_lives_in_a_page_of_its_own(browser, tmp_path):
    states, texts, languages, ids = made_up()
    explorer = LayerExplorer(states, texts, languages, ids, title='A "title" & <b>')
    path = tmp_path / "report.html"
    path.write_text(f"<!DOCTYPE html><meta charset=utf-8><h1>Report</h1>{explorer.to_html_fragment()}", encoding="utf-8")
    page = Page(browser, path, host="document.querySelector('iframe').contentDocument?.querySelector('.alignx-layer-explorer')")
    assert page.text(".title") == 'A "title" & <b>'
    page.wait("const f = document.querySelector('iframe'); return f.clientHeight >= f.contentDocument.documentElement.scrollHeight")
    page.clean()


def test_narrow_dark_and_touch(browser, tmp_path):
    states, texts, languages, ids = made_up()
    path = LayerExplorer({"base": states, "aligned": states}, texts, languages, ids).save_html(tmp_path / "narrow.html")
    emulation = {"width": 360, "height": 800, "deviceScaleFactor": 2, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", emulation)
    browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": True})
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": "dark"}]})
    try:
        page = Page(browser, path)
        assert page.js("return host.dataset.theme") == "dark"
        assert page.js("return document.documentElement.scrollWidth") <= 360
        assert page.js("const c = root.querySelector('canvas'); return c.width / c.clientWidth") == pytest.approx(2, rel=0.02)
        x, y = page.js("const p = host.screenPositions()[0], box = root.querySelector('canvas').getBoundingClientRect(); return [box.left + p.x[5], box.top + p.y[5]]")
        browser.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [{"x": x, "y": y}]})
        browser.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        page.wait("return root.querySelectorAll('.details .head').length", 1)
        page.clean()
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": False})
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_the_page_around_decides_on_light_and_dark(browser, tmp_path):
    states, texts, languages, ids = made_up()
    path = tmp_path / "report.html"
    path.write_text(f"<!DOCTYPE html><meta charset=utf-8><body class=quarto-dark>{LayerExplorer(states, texts, languages, ids).to_html_fragment()}", encoding="utf-8")
    page = Page(browser, path, host="document.querySelector('iframe').contentDocument?.querySelector('.alignx-layer-explorer')")
    assert page.js("return host.dataset.theme") == "dark"
    page.driver.execute_script("document.body.className = 'quarto-light'")
    page.wait("return host.dataset.theme", "light")
    page.clean()
