"""The row inspector: what it takes from rows and tokenizers, and its page in a real browser without a network."""
import html
import json
import random

import pytest
import torch
from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from alignx.data import AlignmentCollator, encode_rows, translation_instructions
from alignx.data.languages import language_id
from alignx.demo import demo_model
from alignx.errors import InputError, UsageError
from alignx.explore import RowInspector
from alignx.explore.row_inspector import language_codes, piece_bytes
from browser import LivePage, browser

HOSTILE = "</script><script>window.hacked = 1</script><img src=x onerror=window.hacked=1>"
ARABIC = "المادة 26، حقوق"
PAIRS = [
    ("Good morning.", "Guten Morgen.", "en", "de"),
    (HOSTILE, "Das ist Text.", "en", "de"),
    ("Article 26, rights", ARABIC, "en", "ar"),
    ("Freedom", "自由宣言 銛", "en", "ja"),
    ("An astronaut 👩🏽‍🚀 \u202egnitset", "অধিকার", "en", "bn"),
    ("A sentence that is so long that its translation cannot fit into the row as well, whatever one does about it.", "Ein Satz. " * 20, "en", "de"),
    ("two  spaces\tand a tab", "全角\u3000空白", "en", "ja"),
]
GENERAL = {"instruction": "Say hello.", "input": "", "output": "Hello.", "lang": "en"}


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(demo_model())


@pytest.fixture(scope="module")
def byte_level():
    "A byte-level BPE that knows ASCII only, so that every other character is several tokens."
    made = Tokenizer(models.BPE())
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    made.train_from_iterator([pair[0] for pair in PAIRS], trainers.BpeTrainer(vocab_size=300, special_tokens=["<pad>", "<eos>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", eos_token="<eos>")


def parallel(pairs=PAIRS):
    return Dataset.from_list([dict(zip(("source", "target", "source_lang", "target_lang"), pair)) for pair in pairs])


def encode(tokenizer, pairs=PAIRS, **settings):
    return encode_rows(translation_instructions(parallel(pairs)), tokenizer, **{"template": "plain", "max_length": 96, **settings})


# ---- what is taken from rows ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["tokenizer", "byte_level"])
@pytest.mark.parametrize("train_on", ["all", "completion"])
def test_nothing_of_a_row_is_lost_or_moved(kind, train_on, request):
    tokenizer = request.getfixturevalue(kind)
    encoded = encode(tokenizer, train_on=train_on)
    values = RowInspector(encoded, tokenizer).values
    for row, shown in zip(encoded, values, strict=True):
        assert shown["ids"] == row["input_ids"] and shown["spans"] == row["spans"] and shown["loss"] == [label != -100 for label in row["labels"]]
        assert "".join(shown["texts"]) == tokenizer.decode(row["input_ids"], clean_up_tokenization_spaces=False)
        assert shown["cut"] == row["truncated"] and not any(shown["padding"])
    sentences = ["".join(text for text, span in zip(values[2]["texts"], values[2]["spans"]) if span == number).strip() for number in (1, 2)]
    assert sentences == [PAIRS[2][0], ARABIC]
    assert values[5]["remarks"][-2:] == ["no usable target span", f"{encoded[5]['truncated']} tokens cut"]


def test_bytes_of_fragments_are_those_of_the_character(byte_level, tokenizer):
    for made in (byte_level, tokenizer):
        values = RowInspector(encode(made), made).values[3]
        found = bytearray()
        for text, piece in zip(values["texts"], values["pieces"]):
            found += bytes.fromhex(piece_bytes(piece)) if piece_bytes(piece) and not (text and text.isascii()) else b""
        last = [index for index, text in enumerate(values["texts"]) if "銛" in text][0]
        own = b"".join(bytes.fromhex(piece_bytes(piece)) for piece in values["pieces"][: last + 1])
        assert own.endswith("銛".encode())
        assert all(byte for byte in values["bytes"][last - 2 : last]) and not values["bytes"][last]


def test_mirror_rows_batches_and_streams(tokenizer):
    encoded = encode(tokenizer, mirror=True)
    values = RowInspector(encoded, tokenizer).values
    assert len(values) == 2 * len(PAIRS) and [one["languages"] for one in values[4:6]] == [["en", "ar"], ["ar", "en"]]
    assert values[1]["ids"] == encoded[0]["mirror_input_ids"] and values[1]["remarks"] == ["mirror row"]
    assert values[10]["cut"] and "cut from the two mirror rows" in values[10]["remarks"][1]
    for side in ("left", "right"):
        batch = AlignmentCollator(tokenizer, padding_side=side)(list(encoded))
        padded = RowInspector(batch, tokenizer).values
        for row, one in zip(padded, values, strict=True):
            real = slice(len(row["ids"]) - len(one["ids"]), None) if side == "left" else slice(len(one["ids"]))
            assert all(row[name][real] == one[name] for name in ("ids", "texts", "spans", "loss", "special")) and sum(row["padding"]) == len(row["ids"]) - len(one["ids"])
    assert RowInspector((row for row in encode(tokenizer)), tokenizer, limit=3).data["longest"] == max(len(row["input_ids"]) for row in encode(tokenizer).select(range(3)))


def test_filters_find_the_rows_one_looks_for(tokenizer):
    rows = translation_instructions(parallel())
    general = encode_rows(Dataset.from_list([GENERAL]), tokenizer, template="plain")
    silent = {**encode(tokenizer)[0]}
    silent["labels"] = [-100] * len(silent["labels"])
    inspector = RowInspector([*encode(tokenizer), *general, silent], tokenizer)
    filters = {one["name"]: one["rows"] for one in inspector.data["filters"]}
    assert filters["no usable span"] == filters["cut"] == [5] and filters["no translation"] == [7] and filters["no loss"] == [8]
    assert filters["en → de"] == [0, 1, 5, 8] and filters["all rows"] == list(range(9)) and len(rows) == 7
    inspector.shown = "cut"
    assert inspector.row == 5
    assert {one["name"] for one in RowInspector(general, tokenizer).data["filters"]} == {"all rows", "no translation"}


def test_languages_come_back_from_their_numbers():
    known = ["en", "sw", "is", "yo", "zh-Hant", "quc"]
    found = language_codes([language_id(code) for code in known], languages=["quc", "zh-Hant"])
    assert [found[language_id(code)] for code in known] == known and language_codes([-1, 12345]) == {12345: None}


def test_words_instead_of_a_page(tokenizer):
    inspector = RowInspector(encode(tokenizer, train_on="completion"), tokenizer, row=3)
    assert "row 3 of 7, en → ja" in repr(inspector) and "⟦source⟧Freedom" in repr(inspector) and "‹E9›" in repr(inspector)
    assert repr(inspector.static()) == repr(inspector) and "<iframe" in inspector.static()._repr_mimebundle_()["text/html"]
    assert html.escape(repr(inspector)) in inspector.static().to_html_fragment().split('">')[-1], "for viewers that take frames out"


@pytest.mark.parametrize("change, message", [
    (lambda rows, tok: RowInspector([], tok), "at least one"),
    (lambda rows, tok: RowInspector([{"source": "a"}], tok), "row 0: column 'input_ids' is missing; make the rows with encode_rows"),
    (lambda rows, tok: RowInspector(rows, tok, limit=0), "at least 1 row"),
    (lambda rows, tok: RowInspector(rows, tok, row=99), "row 99: there are 7"),
    (lambda rows, tok: setattr(RowInspector(rows, tok), "shown", "en → dee"), "did you mean 'en → de'"),
    (lambda rows, tok: setattr(RowInspector(rows, tok), "token", 9999), "token 9999: there are"),
])
def test_bad_input_is_named(tokenizer, change, message):
    with pytest.raises((InputError, UsageError), match=message):
        change(encode(tokenizer), tokenizer)


def test_fifty_long_rows_fit_into_200_kB(tokenizer):
    draw = random.Random(0)
    words = " ".join(pair[0] + " " + pair[1] for pair in PAIRS).split()
    pairs = [(" ".join(draw.choices(words, k=40)), " ".join(draw.choices(words, k=40)), "en", draw.choice(["de", "ar", "ja"])) for _ in range(50)]
    encoded = encode(tokenizer, pairs, max_length=512)
    assert sum(map(len, encoded["input_ids"])) > 10_000
    assert len(RowInspector(encoded, tokenizer).to_html().encode()) <= 200_000


def test_saving_is_all_or_nothing(tokenizer, tmp_path, monkeypatch):
    inspector = RowInspector(encode(tokenizer), tokenizer)
    path = inspector.save_html(tmp_path / "new folder" / "rows.html")
    before = path.read_text(encoding="utf-8")
    inspector.row = 3
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError):
        inspector.save_html(path)
    assert path.read_text(encoding="utf-8") == before and [one.name for one in path.parent.iterdir()] == ["rows.html"]
    assert all(hidden not in before for hidden in ("hacked", "http://", "https://"))


# ---- the page -------------------------------------------------------------------------------------------------------
HOST = "document.querySelector('.alignx-rows')"
BOXES = "return [...root.querySelectorAll('.token[data-token]')].map((node) => [+node.dataset.token, node.textContent, node.className])"


@pytest.fixture
def page(browser, tokenizer, tmp_path):
    inspector = RowInspector(encode(tokenizer, train_on="completion"), tokenizer)
    found = LivePage(browser, inspector.save_html(tmp_path / "rows.html"), HOST)
    found.inspector = inspector
    yield found
    found.clean()


def number(page):
    return page.js("return +root.querySelector('input[type=number]').value")


def test_rows_by_buttons_keys_slider_and_number(page):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    assert number(page) == 0 and page.find('[aria-label="Previous row"]').get_attribute("disabled")
    page.find('[aria-label="Next row"]').click()
    assert number(page) == 1 and "English → German" in page.text(".head")
    page.keys(Keys.ARROW_RIGHT)
    assert number(page) == 2 and "English → Arabic" in page.text(".head")
    page.keys(Keys.END)
    assert number(page) == 6 and page.find('[aria-label="Next row"]').get_attribute("disabled")
    page.keys(Keys.HOME, Keys.ARROW_LEFT)
    assert number(page) == 0
    field = page.find("input[type=number]")
    field.clear(), field.send_keys("3" + Keys.ENTER)
    assert "Japanese" in page.text(".head") and page.text(".sentences dd:last-child") == PAIRS[3][1]
    ActionChains(page.driver).drag_and_drop_by_offset(page.find("input[type=range]"), 600, 0).perform()
    assert number(page) == 6
    assert page.js("return root.querySelector('input[type=range]').getAttribute('aria-valuetext')") == "row 6, 7 of 7"


def test_what_is_drawn_is_the_row(page):
    for values in page.inspector.values:
        page.js("const field = root.querySelector('input[type=number]'); field.value = arguments[0]; field.dispatchEvent(new Event('change'))", values["number"])
        boxes = page.js(BOXES)
        assert [place for place, _, _ in boxes] == list(range(len(values["ids"])))
        for place, text, kinds in boxes:
            assert ("loss" in kinds.split()) == bool(values["loss"][place]) and ("special" in kinds.split()) == values["special"][place]
            if values["bytes"][place]:
                assert text == values["bytes"][place] and "byte" in kinds.split()
        spans = page.js("return [...root.querySelectorAll('.token[data-token]')].map((node) => ['plain', 'source', 'target'].indexOf(node.closest('bdi').className))")
        assert spans == values["spans"]
        share = round(100 * sum(values["loss"]) / len(values["ids"]))
        assert f"{len(values['ids'])} tokens" in page.text(".counts") and f"({share} %)" in page.text(".counts")
    assert page.js("return [...root.querySelectorAll('.tag')].map((node) => node.textContent)") == ["source", "target"]


def test_text_is_text(page):
    page.find('[aria-label="Next row"]').click()
    assert page.text(".sentences dd") == HOSTILE
    assert page.js("return root.querySelectorAll('script, img').length") == 0 and page.driver.execute_script("return window.hacked") is None
    assert "".join(text for _, text, _ in page.js(BOXES)).replace("·", " ").count("<script>window") == 1


def test_right_to_left_white_space_and_what_is_invisible(page):
    from selenium.webdriver.common.keys import Keys

    page.keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert page.js("return [...root.querySelectorAll('.tokens p')].map((node) => node.dir)")[-1] == "rtl" and page.js("return root.querySelector('.sentences dd:last-child').dir") == "rtl"
    places = page.js("return [...root.querySelectorAll('.target .token')].map((node) => node.getBoundingClientRect().left)")
    assert places[0] == max(places) and places[-1] == min(places), "the first token stands on the right"
    assert page.js("return root.querySelector('bdi.target').lang") == "ar"
    page.keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    shown = [text for _, text, _ in page.js(BOXES)]
    assert "U+200D" in shown and any("U+202E" in text for text in shown) and "⏎" in "".join(shown)
    page.keys(Keys.END)
    joined = "".join(text for _, text, _ in page.js(BOXES))
    assert "⇥" in joined or "⬚" in joined


def test_tokens_by_pointer_click_and_keys(page):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    values = page.inspector.values[0]
    ActionChains(page.driver).move_to_element(page.find('[data-token="3"]')).perform()
    assert f"id {values['ids'][3]}" in page.text(".note") and values["pieces"][3] in page.text(".note")
    page.find('[data-token="5"]').click()
    assert page.js("return +root.querySelector('.token.here').dataset.token") == 5
    page.keys(Keys.ARROW_DOWN, Keys.ARROW_DOWN, Keys.ARROW_UP)
    assert page.js("return +root.querySelector('.token.here').dataset.token") == 6
    assert f"id {values['ids'][6]}" in page.text("[aria-live]")
    page.keys(Keys.ESCAPE)
    assert page.find(".token.here") is None and page.text(".note").startswith("Point at a token")


def test_a_filter_steps_through_its_rows_alone(page):
    from selenium.webdriver.support.ui import Select
    from selenium.webdriver.common.keys import Keys

    Select(page.find("select")).select_by_value("en → ja")
    assert number(page) == 3
    page.keys(Keys.ARROW_RIGHT)
    assert number(page) == 6 and "2 of 2" in page.text(".steps")
    Select(page.find("select")).select_by_value("no usable span")
    assert number(page) == 5 and "no usable target span" in page.text(".head") and "✂" in page.text(".tokens")


def test_keys_do_not_reach_the_page_around(page):
    from selenium.webdriver.common.keys import Keys

    page.js("window.heard = []; document.addEventListener('keydown', (event) => window.heard.push(event.key))")
    page.keys(Keys.ARROW_RIGHT, Keys.ARROW_DOWN, Keys.HOME, "a")
    assert page.driver.execute_script("return window.heard") == ["a"]


CONTRAST = """
const parse = (color) => { const v = color.match(/[\\d.]+/g).map(Number); return v.length < 4 ? [...v, 1] : v; };
const lum = (c) => { const [r, g, b] = c.map((v) => ((v /= 255) <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)); return .2126 * r + .7152 * g + .0722 * b; };
const ground = (node) => { for (; node; node = node.parentElement ?? node.getRootNode().host) { const c = parse(getComputedStyle(node).backgroundColor); if (c[3] === 1) return c; } return [255, 255, 255]; };
const bad = [], walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const node = walker.currentNode.parentElement;
  if (!walker.currentNode.data.trim() || ["STYLE", "OPTION"].includes(node.tagName) || !node.getClientRects().length || node.closest("button:disabled")) continue;
  const a = lum(parse(getComputedStyle(node).color).slice(0, 3)), b = lum(ground(node).slice(0, 3)), ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
  if (ratio < 4.5) bad.push([walker.currentNode.data, node.className, ratio]);
}
return bad;
"""


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_can_be_read_on_a_phone_and_a_desk(browser, tokenizer, tmp_path, theme):
    batch = AlignmentCollator(tokenizer)(list(encode(tokenizer, train_on="completion", mirror=True)))
    path = RowInspector(batch, tokenizer, row=4).save_html(tmp_path / "rows.html")
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": theme}]})
    try:
        for width in (1000, 390):
            browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500})
            page = LivePage(browser, path, HOST)
            assert page.js("return host.dataset.theme") == theme and page.js("return document.documentElement.scrollWidth") <= width
            assert page.js(CONTRAST) == [] and "padding" in page.text(".counts") and "× padding" in page.text(".tokens")
            assert page.js("return [...root.querySelectorAll('button, select, input')].every((node) => node.getBoundingClientRect().height >= 30 && (node.getAttribute('aria-label') || node.textContent))")
            page.clean()
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_a_fragment_lives_in_a_page_of_its_own_and_follows_its_theme(browser, tokenizer, tmp_path):
    path = tmp_path / "report.html"
    fragment = RowInspector(encode(tokenizer), tokenizer, title='A "title" & <b>').static().to_html_fragment()
    path.write_text(f"<!DOCTYPE html><meta charset=utf-8><body class=quarto-dark><h1>Report</h1>{fragment}", encoding="utf-8")
    page = LivePage(browser, path, "document.querySelector('iframe').contentDocument?.querySelector('.alignx-rows')")
    assert page.text(".title") == 'A "title" & <b>' and page.js("return host.dataset.theme") == "dark"
    page.wait("const f = document.querySelector('iframe'); return f.clientHeight >= f.contentDocument.documentElement.scrollHeight")
    page.driver.execute_script("document.body.className = 'quarto-light'")
    page.wait("return host.dataset.theme", "light")
    page.clean()


def test_with_a_kernel_both_sides_hear_each_other(tokenizer):
    inspector, heard = RowInspector(encode(tokenizer), tokenizer), []
    inspector.observe(lambda change: heard.append((change["name"], change["new"])), ["row", "token", "shown"])
    inspector.set_state({"row": 3})
    inspector.set_state({"token": 2})
    assert heard == [("row", 3), ("token", 2)] and "row 3" in repr(inspector)
    assert json.loads(inspector.to_html().split('id="state">')[1].split("</script>")[0])["row"] == 3 and "export default { render }" in inspector._esm
