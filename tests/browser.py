"""A headless Chromium without a network, and a page in it that nothing may complain about."""
import json
import shutil
import time

import pytest

BROWSERS = [path for name in ("chromium", "chromium-browser", "google-chrome", "chrome") if (path := shutil.which(name))]


def start_browser(profile, *arguments):
    "A headless Chromium with a profile of its own that logs what pages say and ask for."
    if not BROWSERS:
        pytest.skip("no Chromium on this machine")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = BROWSERS[0]
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--no-first-run", f"--user-data-dir={profile}", *arguments):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    driver.execute_cdp_cmd("Network.enable", {})
    return driver


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    driver = start_browser(tmp_path_factory.mktemp("profile"), "--window-size=1200,1000")
    driver.execute_cdp_cmd("Network.emulateNetworkConditions", {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0})
    yield driver
    driver.quit()


class LivePage:
    "A page with one live picture, in a shadow root that belongs to `host`, a JavaScript expression."

    def __init__(self, driver, path, host):
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

    def find(self, selector):
        return self.js("return root.querySelector(arguments[0])", selector)

    def text(self, selector):
        return self.js("return root.querySelector(arguments[0])?.textContent ?? ''", selector)

    def keys(self, *keys):
        from selenium.webdriver.common.action_chains import ActionChains

        self.js("root.querySelector('.root').focus()")
        for key in keys:
            ActionChains(self.driver).send_keys(key).perform()

    def clean(self):
        "Nothing was asked of the network, and nothing complained."
        assert self.driver.get_log("browser") == []
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        asked = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
        assert [url for url in asked if not url.startswith(("file:", "data:", "about:", "blob:"))] == []
        assert self.driver.execute_script("return window.hacked") is None
