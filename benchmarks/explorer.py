"""The layer explorer in headless Chromium with the network off: size of its page, time until it can be used, time of a frame while the slider moves.

    python benchmarks/explorer.py

2,000 sentences at 18 layers and 20,000 at 33, made up: languages apart at both ends, meanings in the middle, in 4
languages, with sentences of five to fifteen words. No graphics card: Chromium draws on the CPU. `ready` is from the start
of the navigation to the first complete picture. Of a frame, `work` is the time inside the script (moving the points, drawing them into
the canvas) and `interval` the time between two frames as the browser gave them; at 60 Hz that is 16.7 ms if none is late. Also
the time and memory that Python needs to make it, and the time from a pointer's move to the drawn answer (`hover`).
"""
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from measuring import added_memory, machine
from selenium import webdriver

from alignx.explore import LayerExplorer

CASES = {"2,000 × 18": (2_000, 18), "20,000 × 33": (20_000, 33)}
LANGUAGES, WIDTH, TURNS = ["en", "de", "sw", "ar"], 128, 3
WORDS = "all human beings are born free and equal in dignity rights everyone has the right to life liberty security of person no one shall be held".split()
FRAMES = """
window.frames_ = [];
const ask = window.requestAnimationFrame.bind(window);
window.requestAnimationFrame = (callback) => ask((time) => {
  const begin = performance.now(); callback(time); window.frames_.push([time, performance.now() - begin]);
});
"""


def made_up(sentences: int, layers: int, seed: int = 0) -> tuple:
    "Embeddings, texts, languages and ids."
    random, groups = np.random.default_rng(seed), sentences // len(LANGUAGES)
    language = random.normal(size=(1, len(LANGUAGES), WIDTH)).astype("float32")
    meaning = random.normal(size=(groups, 1, WIDTH)).astype("float32")
    own = random.normal(size=(groups, len(LANGUAGES), WIDTH)).astype("float32")
    share = np.sin(np.linspace(0, np.pi, layers))
    states = np.stack([((1.2 - s) * 3 * language + s * 2 * meaning + own + 0.2 * random.normal(size=own.shape).astype("float32")).reshape(-1, WIDTH) for s in share])
    texts = [" ".join(random.choice(WORDS, random.integers(5, 15))) for _ in range(groups * len(LANGUAGES))]
    return states, texts, LANGUAGES * groups, [g for g in range(groups) for _ in LANGUAGES]


def browser(folder: str):
    "Chromium, 1200 × 900, offline."
    options = webdriver.ChromeOptions()
    options.binary_location = next(path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name)))
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1200,900", f"--user-data-dir={folder}"):
        options.add_argument(argument)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    driver.execute_cdp_cmd("Network.enable", {})
    driver.execute_cdp_cmd("Network.emulateNetworkConditions", {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0})
    driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": FRAMES})
    return driver


def wait(driver, code: str, wanted=True, seconds: float = 60):
    "Until the page's answer is what it should be."
    end = time.time() + seconds
    while driver.execute_script(f"const host = document.querySelector('.alignx-layer-explorer'), root = host?.shadowRoot; return {code}") != wanted:
        assert time.time() < end, code
        time.sleep(0.02)


def opened(driver, page: Path) -> float:
    "Seconds from the start of the navigation until the first complete picture."
    driver.get(page.as_uri())
    wait(driver, "host?.dataset.ready === 'true'")
    return driver.execute_script("return performance.getEntriesByName('alignx-explorer-ready')[0].startTime") / 1000


def slide(driver, layers: int) -> tuple[list[float], list[float]]:
    "Work and intervals of the frames, in ms, while the slider goes through the layers from end to end."
    work, intervals = [], []
    for layer in [0, *range(1, layers), *range(layers - 2, -1, -1)][: 2 * 33]:
        driver.execute_script("window.frames_ = []; const slider = document.querySelector('.alignx-layer-explorer').shadowRoot.querySelector('input[type=range]'); slider.value = arguments[0]; slider.dispatchEvent(new Event('input'))", layer)
        wait(driver, "host.dataset.settled", str(layer))
        frames = driver.execute_script("return window.frames_")
        work += [spent for _, spent in frames]
        intervals += np.diff([at for at, _ in frames]).tolist()
    return work, intervals


def hovers(driver, count: int = 40) -> list[float]:
    "Milliseconds of the script from a pointer's move over the picture to the drawn answer."
    return driver.execute_script("""
      const host = document.querySelector('.alignx-layer-explorer'), canvas = host.shadowRoot.querySelector('canvas'), box = canvas.getBoundingClientRect(), { x, y } = host.screenPositions()[0], spent = [];
      for (let k = 0; k < arguments[0]; k++) {
        const i = (k * 7919) % x.length, begin = performance.now();
        canvas.dispatchEvent(new PointerEvent('pointermove', { pointerId: 1, pointerType: 'mouse', bubbles: true, clientX: box.left + x[i], clientY: box.top + y[i] }));
        spent.push(performance.now() - begin);
      }
      return spent;""", count)


def measure(sentences: int, layers: int) -> dict:
    "One case, in a browser of its own."
    inputs, made = made_up(sentences, layers), []
    begin = time.process_time()
    memory = added_memory(lambda: made.append(LayerExplorer(*inputs)))
    spent, explorer = time.process_time() - begin, made[0]
    with tempfile.TemporaryDirectory() as folder:
        page = explorer.save_html(Path(folder) / "explorer.html")
        driver = browser(folder + "/profile")
        try:
            ready = [opened(driver, page) for _ in range(1 + TURNS)][1:]
            work, intervals = slide(driver, layers)
            hovered = hovers(driver)
        finally:
            driver.quit()
        size = page.stat().st_size
    number = lambda values, q: round(float(np.quantile(values, q)), 2)  # noqa: E731
    return {
        "sentences": sentences, "layers": layers, "neighbours": explorer.data["neighbours"]["count"], "page_kB": round(size / 1000, 1), "ready_s": round(float(np.median(ready)), 3),
        "frames": len(work), "work_ms": {"median": number(work, 0.5), "p95": number(work, 0.95)}, "interval_ms": {"median": number(intervals, 0.5), "p95": number(intervals, 0.95)},
        "hover_ms": {"median": number(hovered, 0.5), "p95": number(hovered, 0.95)},
        "python": {"cpu_s": round(spent, 1), "added_MiB": round(memory), "input_MiB": round(inputs[0].nbytes / 2**20)},
    }  # fmt: skip


if __name__ == "__main__":
    asked = sys.argv[1:] or list(CASES)
    results = {name: measure(*CASES[name]) for name in asked}
    for name, result in results.items():
        print(name, json.dumps(result, ensure_ascii=False))
    if not sys.argv[1:]:
        Path(__file__).with_suffix(".json").write_text(json.dumps({"machine": machine("anywidget", "selenium"), "cases": results}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
