"""The documentation site, built without Quarto and read in a real browser that can reach nothing else."""
import functools
import http.server
import importlib.util
import json
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

from browser import start_browser

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted(path.relative_to(ROOT / "nbs").as_posix() for pattern in ("*.ipynb", "*.qmd") for path in (ROOT / "nbs").rglob(pattern) if not re.search(r"(^|/)[_.]|^runs/", path.relative_to(ROOT / "nbs").as_posix()))
WIDGETS = "iframe[data-alignx]"

pytestmark = pytest.mark.skipif(sys.version_info < (3, 11), reason="what builds the site asks for Python 3.11 or later")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    output = tmp_path_factory.mktemp("site") / "docs"
    done = subprocess.run([sys.executable, ROOT / "tools" / "build_docs.py", "--output", output], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    return output


@pytest.fixture(scope="module")
def pages(site):
    return sorted(path.relative_to(site).as_posix() for path in site.rglob("*.html"))


@pytest.fixture(scope="module")
def address(site):
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            "Tests report what matters."

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    driver = start_browser(tmp_path_factory.mktemp("profile"), "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1")
    driver.set_script_timeout(60)
    yield driver
    driver.quit()


def width(browser, pixels, height=1000):
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {"width": pixels, "height": height, "deviceScaleFactor": 1, "mobile": pixels < 600})


def theme(browser, name, motion="no-preference"):
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": name}, {"name": "prefers-reduced-motion", "value": motion}]})


def wait(browser, code, *arguments, seconds=15):
    end = time.time() + seconds
    while not (value := browser.execute_script(code, *arguments)):
        assert time.time() < end, f"{browser.current_url}: never true: {code}"
        time.sleep(0.03)
    return value


def see_widgets(browser):
    "Scroll every widget of the page into view and wait until it is alive."
    for frame in browser.find_elements("css selector", WIDGETS):
        browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", frame)
        wait(browser, "return Boolean(arguments[0].contentDocument?.querySelector('[data-ready=\"true\"]'))", frame)


def test_each_page_loads_without_a_complaint_and_without_the_network(browser, address, pages):
    width(browser, 1400), theme(browser, "light")
    problems = []
    for page in pages:
        browser.get_log("browser"), browser.get_log("performance")
        browser.get(address + page)
        wait(browser, "return document.readyState === 'complete'")
        see_widgets(browser)
        logged = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
        asked = [event["params"]["request"]["url"] for event in logged if event["method"] == "Network.requestWillBeSent"]
        problems += [f"{page}: asks for {url[:100]}" for url in asked if not url.startswith((address, "data:", "about:", "blob:"))]
        problems += [f"{page}: {entry['message'][:200]}" for entry in browser.get_log("browser") if "favicon" not in entry["message"]]
        size = sum(event["params"]["encodedDataLength"] for event in logged if event["method"] == "Network.loadingFinished")
        html = browser.execute_script("return new Blob([document.documentElement.outerHTML]).size")
        problems += [f"{page}: {max(size, html) / 1e6:.1f} MB"] if max(size, html) > 2e6 else []
    assert not problems, "\n".join(problems)


def pale_text(browser, name, everything=True):
    "What has too little contrast in the theme `name`, or what of it is this page's own; the page has `axe` by then."
    theme(browser, name, "reduce")  # else colours are read on their way from one theme to the other
    wait(browser, "return document.documentElement.classList.contains('quarto-dark') === arguments[0]", name == "dark")
    where = "body" if everything else {"include": ["main"], "exclude": ["pre.sourceCode", "math"]}
    look = "const done = arguments[1]; axe.run(arguments[0], {runOnly: ['color-contrast'], iframes: false, resultTypes: ['violations']}).then((found) => done(found.violations.flatMap((v) => v.nodes.map((n) => `${n.any[0].data.contrastRatio}:1 ${n.html.slice(0, 150)}`))))"
    return [f"{name} {browser.current_url}: {place}" for place in browser.execute_async_script(look, where)]


@pytest.fixture(scope="module")
def axe():
    import axe_core_python

    return (Path(axe_core_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8")


def test_text_stands_out_in_both_themes(browser, address, pages, axe):
    width(browser, 1400)
    problems = []
    for page in pages:
        browser.get(address + page)
        browser.execute_script(axe)
        everything = page in ("index.html", "align/contrastive.html", "terms.html")  # code, formulas and what stands around look alike on each page
        problems += pale_text(browser, "light", everything) + pale_text(browser, "dark", everything)
    assert not problems, f"{len(problems)} places\n" + "\n".join(problems[:40])


def test_no_page_is_wider_than_a_phone(browser, address, pages):
    width(browser, 390, 844), theme(browser, "light")
    wide = []
    for page in pages:
        browser.get(address + page)
        over = browser.execute_script("return document.documentElement.scrollWidth - 390")
        wide += [f"{page}: {over} px too wide"] if over > 1 else []
    assert not wide, "\n".join(wide)


def widgets(browser, address, page):
    "Each live widget of the page: its kind and its shadow root, with the browser inside its frame."
    browser.get(address + page)
    for number in range(len(browser.find_elements("css selector", WIDGETS))):
        frame = browser.find_elements("css selector", WIDGETS)[number]
        browser.execute_script("arguments[0].scrollIntoView({block: 'start'}); window.scrollBy(0, -80)", frame)
        wait(browser, "return Boolean(arguments[0].contentDocument?.querySelector('[data-ready=\"true\"]'))", frame)
        browser.switch_to.frame(frame)
        host = browser.find_element("css selector", "[data-ready='true']")
        yield host.get_attribute("class"), host
        browser.switch_to.default_content()


def try_explorer(browser, host, page):
    "Slider, legend and pointer: each has to change the picture, the words, or both."
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    root = host.shadow_root
    picture = lambda: root.find_element("css selector", "canvas").screenshot_as_png  # noqa: E731
    words = lambda: browser.execute_script("return arguments[0].shadowRoot.textContent", host)  # noqa: E731
    before, said, layer = picture(), words(), wait(browser, "return arguments[0].dataset.settled", host)
    slider = root.find_element("css selector", "input[type=range]")
    slider.send_keys(Keys.HOME if browser.execute_script("return arguments[0].value !== arguments[0].min", slider) else Keys.END)
    wait(browser, "return arguments[0].dataset.settled !== undefined && arguments[0].dataset.settled !== arguments[1]", host, layer)
    assert picture() != before and words() != said, f"{page}: the slider changes nothing"
    before, language = picture(), root.find_element("css selector", "[data-language]")
    language.click()
    ActionChains(browser).move_to_element(slider).perform()
    assert language.get_attribute("aria-pressed") == "false" and picture() != before, f"{page}: the legend changes nothing"
    language.click()
    x, y = browser.execute_script("const p = arguments[0].screenPositions()[0], c = arguments[0].shadowRoot.querySelector('canvas'); return [p.x[0] - c.clientWidth / 2, p.y[0] - c.clientHeight / 2]", host)
    ActionChains(browser).move_to_element_with_offset(root.find_element("css selector", "canvas"), round(x), round(y)).perform()
    wait(browser, "return arguments[0].shadowRoot.querySelector('.tip:not([hidden]) .text')?.textContent", host)


def try_inspector(browser, host, page):
    "The slider leads to another row, and pointing at a token tells of it."
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    tokens = lambda: browser.execute_script("return arguments[0].shadowRoot.querySelector('.tokens').textContent", host)  # noqa: E731
    before = tokens()
    host.shadow_root.find_element("css selector", "input[type=range]").send_keys(Keys.END)
    assert tokens() != before, f"{page}: the slider changes nothing"
    note = lambda: browser.execute_script("return arguments[0].shadowRoot.querySelector('.note').textContent", host)  # noqa: E731
    told = set()
    for token in host.shadow_root.find_elements("css selector", ".token")[1:4]:
        ActionChains(browser).move_to_element(token).perform()
        told.add(note())
    assert len(told) == 3, f"{page}: pointing at a token tells nothing"


def test_widgets_answer_to_slider_legend_and_pointer(browser, address, site, pages):
    width(browser, 1400, 1200), theme(browser, "light", "reduce")  # the page would glide to each widget
    tried = {}
    for page in pages:
        if "data-alignx=" in (site / page).read_text(encoding="utf-8"):
            for kind, host in widgets(browser, address, page):
                (try_explorer if "alignx-layer-explorer" in kind else try_inspector)(browser, host, page)
                tried.setdefault(kind.split()[0], set()).add(page)
    assert {"index.html", "explore/layer_explorer.html", "tutorials/reading_the_explorer.html", "tutorials/quickstart.html", "evaluate/embeddings.html"} <= tried["alignx-layer-explorer"]
    assert "explore/row_inspector.html" in tried["alignx-rows"]


def test_search_finds_and_can_be_read(browser, address, axe):
    width(browser, 1400), theme(browser, "light")
    browser.get(address + "evaluate/alignment.html")
    box = browser.find_element("css selector", ".smalldocs-search input")
    box.send_keys("temperature")
    links = wait(browser, "const found = [...document.querySelectorAll('.search-result')]; return found.length ? found.map((a) => a.href) : null")
    assert any("align/contrastive.html" in link for link in links)
    browser.execute_script(axe)
    assert pale_text(browser, "light") + pale_text(browser, "dark") == []
    browser.get(links[0])
    wait(browser, "return document.readyState === 'complete' && document.querySelector('main h1') !== null")


def test_every_source_is_a_page_in_the_sidebar_and_opens_in_colab(site, pages):
    text = (site / "index.html").read_text(encoding="utf-8")
    sidebar = set(re.findall(r'href="([^"#]*)"', text[text.index('id="quarto-sidebar"') : text.index("quarto-sidebar-glass")]))
    assert len(SOURCES) > 100 and len(pages) == len(SOURCES)
    assert set(pages) - sidebar == set()
    linked = {source for page in pages for source in re.findall(r"/blob/main/nbs/([^\"]+)", (site / page).read_text(encoding="utf-8").split('class="toc-actions"')[-1])}
    assert set(SOURCES) - linked == set()


def test_colab_link_leads_to_the_notebook(browser, address):
    browser.get(address + "evaluate/alignment.html")
    assert browser.find_element("css selector", ".open-in-colab a").get_attribute("href") == "https://colab.research.google.com/github/alignx/alignx/blob/main/nbs/evaluate/02_alignment.ipynb"
    browser.get(address + "terms.html")
    assert not browser.find_elements("css selector", ".open-in-colab")


def test_formulas_are_mathml_without_leftovers(site, pages):
    count = 0
    for page in pages:
        text = (site / page).read_text(encoding="utf-8")
        for formula in re.findall(r"<math\b.*?</math>", text, re.S):
            words = "".join(ElementTree.fromstring(formula.replace("&nbsp;", " ")).itertext())
            assert "\\" not in words, f"{page}: {words}"
            count += 1
        outside = re.sub(r"<(code|script|iframe|pre)\b.*?(</\1>|$)", "", text, flags=re.S)
        assert not re.search(r"\\[(\[]|\$\$", outside), f"{page}: a formula was left as it is"
    assert count > 100


def test_no_markdown_and_no_picture_is_left_as_text(site, pages):
    problems = []
    for page in pages:
        text = (site / page).read_text(encoding="utf-8")
        problems += [f"{page}: {found}" for found in re.findall(r"&lt;(?:Figure|Axes|IPython)[^&]{0,60}", text)]
        words = re.sub(r"<[^>]+>", "", re.sub(r"<(code|script|iframe|pre|style|math)\b.*?</\1>", "", text, flags=re.S))
        problems += [f"{page}: {found}" for found in re.findall(r".{0,40}(?:\]\(|\]\.\.|\*\*|`).{0,40}", words)]
    assert not problems, "\n".join(problems)


def test_a_dead_link_is_found(tmp_path):
    spec = importlib.util.spec_from_file_location("build_docs", ROOT / "tools" / "build_docs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (tmp_path / "a.html").write_text('<p id="here"></p><a href="b.html#there">x</a><a href="c.html">x</a><a href="#here">x</a><a href="https://a.b/">x</a>')
    (tmp_path / "b.html").write_text('<a href="a.html#here">x</a><img src="p.png">')
    assert module.dead_links(tmp_path) == ["a.html: b.html#there", "a.html: c.html", "b.html: p.png"]


def test_quarto_settings_name_what_exists():
    config = yaml.safe_load((ROOT / "_quarto.yml").read_text(encoding="utf-8"))
    assert (ROOT / "nbs" / "_quarto.yml").resolve() == ROOT / "_quarto.yml"

    def named(entry):
        if isinstance(entry, str):
            return [entry]
        return [entry["href"]] if "href" in entry else [name for inner in entry["contents"] for name in named(inner)]

    names = named({"contents": config["website"]["sidebar"]["contents"]}) + named({"contents": [entry for entry in config["website"]["navbar"]["left"]]})
    html = config["format"]["html"]
    assert set(SOURCES) == set(names)
    assert all((ROOT / "nbs" / name).is_file() for name in [*names, html["css"], "theme.scss"])
