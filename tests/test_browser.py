"""The built book in a browser: every page, light and dark, wide and on a phone, with no other host in reach."""

from __future__ import annotations

import functools
import http.server
import re
import shutil
import threading
from pathlib import Path

import pytest
import yaml

from test_end_to_end import TOP, made, settings  # noqa: F401 (fixtures: the same report, made once)

pytest.importorskip("playwright", reason="not at hand: playwright, of the extras `browser`")
pytest.importorskip("axe_playwright_python", reason="not at hand: axe-playwright-python, of the extras `browser`")
from axe_playwright_python.base import AxeBase  # noqa: E402
from playwright.sync_api import Error, sync_playwright  # noqa: E402

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
THEME = "theme => Object.assign(document.documentElement.dataset, {mode: theme, theme})"
# What sticks out of the window and is in no box of its own that scrolls
STICKS_OUT = """() => [...document.querySelectorAll('.bd-article-container *')].filter(one => {
    const box = one.getBoundingClientRect();
    if (!box.width || !box.height || box.right <= innerWidth + 1 || one.closest('.onlyprint')) return false;
    for (let up = one.parentElement; up && up.tagName !== 'MAIN'; up = up.parentElement)
        if (/auto|scroll|hidden/.test(getComputedStyle(up).overflowX) && up.getBoundingClientRect().right <= innerWidth + 1)
            return false;
    return true;
}).map(one => one.outerHTML.slice(0, 100))"""


def listed() -> list[str]:
    toc = yaml.safe_load((TOP / "book" / "_toc.yml").read_text(encoding="utf-8"))
    return [toc["root"], *(entry["file"] for part in toc["parts"] for entry in part["chapters"])]


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as play:
        found = next(filter(None, map(shutil.which, NAMES)), None)
        try:
            opened = play.chromium.launch(executable_path=found, args=["--no-sandbox"])
        except Error as error:
            pytest.skip(f"no browser to test the book in: {str(error).splitlines()[0]}")
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def book(browser, made):  # noqa: F811
    """The folder of the pages; after `browser`, so that nothing is made where there is none."""
    return made / "_build" / "tiny" / "html"


@pytest.fixture(scope="module")
def address(book):
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(book)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def tab(browser, address, book):
    """A page of a browser that reaches the book alone; `tab.faults` says what went wrong and what else it asked for."""
    context = browser.new_context(viewport=WIDE)
    page = context.new_page()
    page.faults = []

    def let(route):
        if route.request.url.startswith((f"{address}/", "data:", book.as_uri())):
            return route.continue_()
        page.faults.append(f"asks for {route.request.url}")
        route.abort()

    context.route("**/*", let)
    page.on("console", lambda said: page.faults.append(said.text) if said.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: page.faults.append(str(error)))
    page.on("requestfailed", lambda request: page.faults.append(f"failed: {request.url}"))
    yield page
    context.close()


@pytest.mark.parametrize("page", listed())
def test_a_page(tab, address, page):
    """Loads without the network, and can be read by everybody, in light and dark, wide and on a phone."""
    tab.goto(f"{address}/{page}.html")
    assert not tab.faults
    assert not tab.eval_on_selector_all("img", "all => all.filter(one => !one.alt.trim()).map(one => one.src)")
    tab.evaluate(AxeBase().axe_script)
    found = []
    for size in (WIDE, PHONE):
        tab.set_viewport_size(size)
        at = f"{size['width']} pixels"
        wide = tab.evaluate("document.documentElement.scrollWidth")
        found += [f"{at}: the page is {wide} wide"] if wide > size["width"] else []
        found += [f"{at}: sticks out: {one}" for one in tab.evaluate(STICKS_OUT)]
        for theme in ("light", "dark"):
            tab.evaluate(THEME, theme)
            for fault in tab.evaluate("axe.run({resultTypes: ['violations']})")["violations"]:
                if fault["impact"] in ("serious", "critical"):
                    found += [f"{at}, {theme}: {fault['help']}: {node['html'][:200]}" for node in fault["nodes"]]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("page", ["book/index", "book/results", "notebooks/08_comparison"])
def test_a_page_opened_as_a_file(tab, book, page):
    tab.goto((book / f"{page}.html").as_uri())
    assert not tab.faults
    assert tab.locator("h1").first.is_visible()
