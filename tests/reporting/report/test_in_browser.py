"""report.html in a real browser without a network: it renders, requests nothing, and its slider moves."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sample_events import sample_line

from hpcfwi import write_report

pytestmark = pytest.mark.hostile

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
# As root it needs no-sandbox; the others are for machines without a screen or much shared memory.
SWITCHES = ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage")
FAILURES = {
    "requests": "return performance.getEntriesByType('resource').map(e => e.name).filter(n => !n.startsWith('data:'))",
    "broken pictures": "return [...document.images].filter(i => !(i.complete && i.naturalWidth > 0)).map(i => i.alt)",
    "pictures without a text": """
        return [...document.images].filter(i => !i.alt.trim() && i.role !== 'presentation')
            .map(i => i.outerHTML.slice(0, 80))""",
    # what is wider than the page and does not scroll in a box of its own
    "too wide": """
        const inBox = e => e.closest('.wide, pre');
        return [...document.querySelectorAll('body *')]
            .filter(e => !inBox(e) && e.getBoundingClientRect().right > innerWidth + 1)
            .map(e => e.outerHTML.slice(0, 80))""",
    "empty drawings": """
        return [...document.querySelectorAll('svg')].filter(s => !s.getBoundingClientRect().height)
            .map(s => s.outerHTML.slice(0, 80))""",
}


class Browser:
    """A headless Chromium without a network that remembers what was asked of it."""

    def __init__(self) -> None:
        from selenium import webdriver
        from selenium.webdriver.chrome.service import Service

        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM
        for switch in SWITCHES:
            options.add_argument(f"--{switch}")
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=Service(DRIVER))
        self.send("Network.enable")
        self.send("Network.emulateNetworkConditions", offline=True, latency=0, downloadThroughput=0, uploadThroughput=0)

    def send(self, command: str, **facts: Any) -> None:
        self.driver.execute_cdp_cmd(command, facts)

    def open(self, path: Path, width: int = 1280) -> None:
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 500
        )
        self.driver.get_log("browser")
        self.driver.get_log("performance")
        self.driver.get(path.as_uri())

    def ask(self, script: str) -> Any:
        return self.driver.execute_script(script)

    def requested(self) -> list[str]:
        """Addresses that have been asked for since the page was opened."""
        events = (json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance"))
        return [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]

    def complaints(self) -> list[str]:
        return [entry["message"] for entry in self.driver.get_log("browser")]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not (CHROMIUM and DRIVER):
        pytest.skip("no Chromium and its driver here (packages chromium, chromium-driver)")
    pytest.importorskip("selenium", reason="no selenium here (the extra [test] has it)")
    browser = Browser()
    yield browser
    browser.driver.quit()


def check(browser: Browser, path: Path, width: int) -> None:
    """What is true of every report."""
    browser.open(path, width)
    asked = [address for address in browser.requested() if not address.startswith("data:")]
    assert asked == [path.as_uri()]
    for what, script in FAILURES.items():
        assert browser.ask(script) == [], f"{what} at a width of {width}"
    assert browser.ask("return document.documentElement.scrollWidth") <= width
    assert browser.complaints() == []


@pytest.mark.parametrize("width", [390, 1280])
def test_a_report_renders_on_a_phone_and_on_a_screen(browser, first_run, width):
    check(browser, first_run[2] / "report.html", width)
    assert browser.ask("return document.images.length") > 6


def test_the_arrow_keys_move_the_slider(browser, first_run):
    from selenium.webdriver.common.keys import Keys

    browser.open(first_run[2] / "report.html")
    slider, shown = (browser.driver.find_element("id", name) for name in ("iteration", "shown"))
    panels = browser.driver.find_elements("css selector", "img[data-panel]")

    def state() -> tuple[str, ...]:
        seen = [(panel.get_attribute("src"), panel.get_attribute("alt")) for panel in panels]
        return shown.text, slider.get_attribute("aria-valuetext"), *(text for panel in seen for text in panel)

    states = [state()]
    for key in (Keys.ARROW_LEFT, Keys.HOME, Keys.ARROW_RIGHT):
        slider.send_keys(key)
        states.append(state())
    last, before, first, after = states
    assert [label.split(":")[0] for label, *_ in states] == [
        "Iteration 2",
        "Iteration 1",
        "Initial model (iteration 0)",
        "Iteration 1",
    ]
    assert after == before
    # the label and its text for a screen reader, each panel's picture and its text
    for one, other in ((last, before), (before, first)):
        assert len(one) == 6
        assert all(a != b for a, b in zip(one, other, strict=True))
    assert browser.ask(FAILURES["broken pictures"]) == []
    assert browser.complaints() == []


def test_play_shows_the_iterations_one_after_the_other(browser, first_run):
    from selenium.webdriver.support.ui import WebDriverWait

    browser.open(first_run[2] / "report.html")
    shown, button = (browser.driver.find_element("id", name) for name in ("shown", "play"))
    button.click()
    assert shown.text.startswith("Initial model")
    assert button.text == "Stop"
    WebDriverWait(browser.driver, 10).until(lambda _: button.text == "Play")
    assert shown.text.startswith("Iteration 2")


EVIL = (
    "</script></title><script>document.title = 'executed'</script><img src=x onerror=\"document.title = 'executed'\">"
)


def test_nothing_in_a_run_folder_is_executed(browser, first_run, tmp_path):
    run = tmp_path / "<img src=x onerror=alert(1)>"
    shutil.copytree(first_run[2], run)
    facts = {"worker": EVIL, "host": EVIL, "name": EVIL, "reason": EVIL, "message": EVIL, "shot": EVIL, "seconds": 1.0}
    with (run / "events.jsonl").open("a") as file:
        for event in ("start", "worker joined", "shot staged", "retry", "worker died", "warning", "failed"):
            file.write(sample_line(event, time=2e9, layout=EVIL, site=EVIL, **facts).decode())
    check(browser, write_report(run), 390)
    assert "executed" not in browser.driver.title
    assert browser.driver.title.startswith("<img src=x")
    # nor would it be if it were there
    browser.ask(
        "const s = document.createElement('script'); s.textContent = \"document.title = 'executed'\";"
        "document.body.append(s)"
    )
    assert "executed" not in browser.driver.title
    assert any("Content Security Policy" in complaint for complaint in browser.complaints())


@pytest.mark.parametrize(
    "what", ["killed", "no models", "nothing but events", pytest.param("three axes", marks=pytest.mark.slow)]
)
def test_reports_of_other_runs_render_too(browser, first_run, tmp_path, hpcfwi, what):
    run = tmp_path / "run"
    if what == "three axes":
        cube = (hpcfwi.folder / "fwi.toml").read_text()
        for old, new in (
            ("[31, 31]", "[21, 19, 17]"),
            ("[20.0, 20.0]", "[30.0, 30.0, 30.0]"),
            ("first = [20.0, 100.0]\nlast = [20.0, 500.0]", "first = [30.0, 30.0, 30.0]\nlast = [500.0, 400.0, 30.0]"),
            ("first = [580.0, 20.0]\nlast = [580.0, 580.0]", "first = [0.0, 0.0, 450.0]\nlast = [600.0, 540.0, 450.0]"),
        ):
            assert old in cube
            cube = cube.replace(old, new)
        (hpcfwi.folder / "fwi.toml").write_text(cube)
        hpcfwi.run("run", "inversion.iterations=1", "output.figures=true", "wavelet.peak_frequency=5.0")
    else:
        shutil.copytree(first_run[2], run)
        (run / "report.html").unlink()
        if what != "no models":
            (run / "result.json").unlink()
            (run / "model.npy").rename(run / "model-current.npy")
        if what != "killed":
            shutil.rmtree(run / "models")
        if what == "nothing but events":
            for path in run.iterdir():
                if path.is_file() and path.name != "events.jsonl":
                    path.unlink()
        write_report(run)
    for width in (390, 1280):
        check(browser, run / "report.html", width)
