"""A headless Chromium to look at pages with, as a fixture.

`apt-get install chromium chromium-driver` and `pip install selenium` bring it;
`npm install --no-save axe-core` in the checkout brings the rules of
accessibility. Where one is missing, the tests are skipped, and say so. Nothing
but this machine can be reached from it.
"""

import base64
import json
import pathlib
import shutil

import pytest

ROOT = pathlib.Path(__file__).parents[1]
AXE = ROOT / "node_modules" / "axe-core" / "axe.min.js"
WIDTHS = (400, 1400)


class Browser:
    """Chromium, and what a test asks of a page.

    Args:
        driver: `selenium.webdriver.Chrome`, for all that is not here.
    """

    def __init__(self, driver):
        self.driver = driver

    def open(self, page, width=1400, dark=False, scripts=True):
        """Opens a file or an address.

        Args:
            page: Path of a file, or a string, an address.
            width: Integer, of the window, in CSS pixels.
            dark: Boolean, whether the user prefers dark pages.
            scripts: Boolean, whether JavaScript runs.
        """
        command = self.driver.execute_cdp_cmd
        command("Emulation.setScriptExecutionDisabled", {"value": not scripts})
        command(
            "Emulation.setDeviceMetricsOverride",
            {
                "width": width,
                "height": 900,
                "deviceScaleFactor": 1,
                "mobile": False,
            },
        )
        scheme = "dark" if dark else "light"
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        command("Emulation.setEmulatedMedia", {"features": features})
        # What was told of the page before is not told of this one.
        self.driver.get("about:blank")
        self.console(), self.requests()
        if isinstance(page, pathlib.Path):
            page = page.resolve().as_uri()
        self.driver.get(page)

    def script(self, code, *arguments):
        """Runs JavaScript in the page; gives back what it returns."""
        return self.driver.execute_script(code, *arguments)

    def find(self, selector):
        """The elements that a CSS selector names, as a list."""
        return self.driver.find_elements("css selector", selector)

    def console(self):
        """Warnings and errors in the console since this was last asked."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self):
        """Addresses asked for since this was last asked, but `data:`."""
        events = [
            json.loads(entry["message"])["message"]
            for entry in self.driver.get_log("performance")
        ]
        addresses = [
            event["params"]["request"]["url"]
            for event in events
            if event["method"] == "Network.requestWillBeSent"
        ]
        return [a for a in addresses if not a.startswith(("data:", "about:"))]

    def overflow(self):
        """By how many CSS pixels the page is wider than the window."""
        return self.script(
            "const page = document.documentElement;"
            "return page.scrollWidth - page.clientWidth;"
        )

    def violations(self, tags=None):
        """What axe-core finds wrong, as short texts; skips without axe-core.

        Args:
            tags: List of strings, the sets of rules; all by default.
        """
        if not AXE.exists():
            pytest.skip("no axe-core: npm install --no-save axe-core")
        self.script(AXE.read_text(encoding="utf-8"))
        options = {"resultTypes": ["violations"]}
        if tags is not None:
            options["runOnly"] = {"type": "tag", "values": tags}
        found = self.driver.execute_async_script(
            "const done = arguments[arguments.length - 1];"
            "axe.run(document, arguments[0]).then(done, "
            "error => done({error: String(error)}));",
            options,
        )
        assert "error" not in found, found["error"]
        return [
            f"{rule['id']}: {node['html'][:200]}: {node['failureSummary']}"
            for rule in found["violations"]
            for node in rule["nodes"]
        ]

    def screenshot(self, path, whole=True):
        """Writes a PNG of the page, or of what is in the window."""
        shot = self.driver.execute_cdp_cmd(
            "Page.captureScreenshot", {"captureBeyondViewport": whole}
        )
        pathlib.Path(path).write_bytes(base64.b64decode(shot["data"]))


@pytest.fixture(scope="session")
def browser():
    """A `Browser`; skips where Chromium, its driver or Selenium is missing."""
    webdriver = pytest.importorskip(
        "selenium.webdriver", reason="no Selenium: pip install selenium"
    )
    program = shutil.which("chromium") or shutil.which("google-chrome")
    controller = shutil.which("chromedriver")
    if program is None or controller is None:
        pytest.skip(
            "no Chromium with its driver: apt-get install chromium "
            "chromium-driver"
        )
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for argument in (
        "--headless=new",
        # Containers: often as root, with little shared memory.
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--hide-scrollbars",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, "
        "EXCLUDE localhost",
    ):
        options.add_argument(argument)
    options.set_capability(
        "goog:loggingPrefs", {"browser": "WARNING", "performance": "ALL"}
    )
    driver = webdriver.Chrome(
        options=options, service=webdriver.ChromeService(controller)
    )
    driver.set_script_timeout(60)
    yield Browser(driver)
    driver.quit()
