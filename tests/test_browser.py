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
axe = pytest.importorskip("axe_playwright_python", reason="not at hand: it, of the extras `browser`")
from playwright.sync_api import Error, sync_playwright  # noqa: E402

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
# What axe looks at. Colours take it long: those of the text, the same at any width, it looks at once.
ALL, AROUND = {"include": ["html"]}, {"include": ["html"], "exclude": ["article.bd-article"]}
COLOURS, OTHERS = {"runOnly": ["color-contrast"]}, {"rules": {"color-contrast": {"enabled": False}}}
CHECKED = (
    (WIDE, [("light", ALL, {}), ("dark", ALL, COLOURS)]),
    (PHONE, [("light", ALL, OTHERS), ("light", AROUND, COLOURS), ("dark", AROUND, COLOURS)]),
)
THEME = "theme => Object.assign(document.documentElement.dataset, {mode: theme, theme})"
# What sticks out of the window and is in no box of its own that scrolls
STICKS_OUT = """() => [...document.querySelectorAll('.bd-article-container *')].filter(one => {
    const box = one.getBoundingClientRect();
    if (!box.width || !box.height || box.right <= innerWidth + 1 || one.closest('.onlyprint')) return false;
    for (let up = one.parentElement; up && up.tagName !== 'MAIN'; up = up.parentElement)
        if (/auto|scroll|hidden/.test(getComputedStyle(up).overflowX)
            && up.getBoundingClientRect().right <= innerWidth + 1) return false;
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
    """A tab that reaches the book alone; `tab.faults` says what went wrong, and what else it asked for."""
    context = browser.new_context(viewport=WIDE)
    page = context.new_page()
    page.faults = []

    def let(route):
        if route.request.url.startswith((f"{address}/", "data:", book.as_uri())):
            return route.continue_()
        page.faults.append(f"asks for {route.request.url}")
        route.abort()

    context.route("**/*", let)
    page.on("console", lambda said: said.type in ("error", "warning") and page.faults.append(said.text))
    page.on("pageerror", lambda error: page.faults.append(str(error)))
    page.on("requestfailed", lambda request: page.faults.append(f"failed: {request.url}"))
    yield page
    context.close()


@pytest.mark.parametrize("page", listed())
def test_a_page_can_be_read(tab, address, page):
    """Loads without the network, and can be read by everybody, in light and dark, wide and on a phone."""
    tab.goto(f"{address}/{page}.html")
    assert not tab.faults
    assert not tab.evaluate("[...document.images].filter(one => !one.alt.trim()).map(one => one.src)")
    tab.add_style_tag(content="* { transition: none !important }")  # no colour half-way to another
    tab.evaluate(Path(axe.__file__).with_name("axe.min.js").read_text(encoding="utf-8"))
    found = []
    for size, looks in CHECKED:
        tab.set_viewport_size(size)
        tab.wait_for_timeout(400)  # the theme looks after 0.3 s what scrolls now, for the keyboard
        at = f"{size['width']} pixels"
        wide = tab.evaluate("document.documentElement.scrollWidth")
        found += [f"{at}: the page is {wide} wide"] if wide > size["width"] else []
        found += [f"{at}: sticks out: {one}" for one in tab.evaluate(STICKS_OUT)]
        for theme, where, rules in looks:
            tab.evaluate(THEME, theme)
            said = tab.evaluate("asked => axe.run(...asked)", [where, {"resultTypes": ["violations"], **rules}])
            for fault in said["violations"]:
                if fault["impact"] in ("serious", "critical"):
                    what = f"{at}, {theme}: {fault['help']}"
                    found += [f"{what}: {node['html'][:200]}" for node in fault["nodes"]]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("page", ["book/index", "book/results", "notebooks/08_comparison"])
def test_a_page_opened_as_a_file(tab, book, page):
    tab.goto((book / f"{page}.html").as_uri())
    assert not tab.faults
    assert tab.locator("article h1").first.is_visible()


def test_search_finds_a_word_and_leads_to_its_page(tab, address):
    tab.goto(f"{address}/book/index.html")
    tab.keyboard.press("Control+k")
    tab.locator("#pst-search-dialog input").fill("McNemar")
    tab.keyboard.press("Enter")
    found = tab.locator("#search-results ul.search a").filter(has_text="Statistics")
    found.first.click()
    tab.wait_for_url(re.compile("/book/statistics.html"))
    assert tab.get_by_text("exact test of McNemar").is_visible()
    assert not tab.faults


def test_dark_mode_follows_the_system_and_the_switch(browser, tab, address):
    theme = "document.documentElement.dataset.theme"
    with browser.new_context(color_scheme="dark") as context:
        page = context.new_page()
        page.goto(f"{address}/book/index.html")
        assert page.evaluate(theme) == "dark"
    tab.goto(f"{address}/book/index.html")
    assert tab.evaluate(theme) == "light"
    seen = set()
    for _ in range(3):  # automatic, light, dark
        tab.locator(".theme-switch-button:visible").click()
        seen.add((tab.evaluate(theme), tab.evaluate("getComputedStyle(document.body).backgroundColor")))
    assert {look for look, _ in seen} == {"light", "dark"} and len({colour for _, colour in seen}) == 2


def test_code_unfolds_by_mouse_and_by_keyboard(tab, address):
    tab.goto(f"{address}/notebooks/03_model_a.html")
    fold = tab.locator("details.hide").first
    code, handle = fold.locator("pre"), fold.locator("summary")
    assert not code.is_visible()
    handle.click()
    assert code.is_visible() and "epochs" in code.inner_text()
    handle.focus()
    tab.keyboard.press("Enter")
    assert not code.is_visible()
    tab.keyboard.press("Space")
    assert code.is_visible()


def test_a_table_sorts_by_its_headings(tab, address):
    """Numbers by their value, not by their digits, without what stands in brackets; empty cells last."""
    tab.goto(f"{address}/book/results.html")
    table = tab.locator("table:has(th:has-text('age MAE'))").first
    head = table.locator("th", has_text="age MAE")

    def column() -> list[str]:
        return table.locator("tbody td:nth-child(3)").all_inner_texts()

    def figures() -> list[float]:
        return [float(re.match(r"[\d.]+", cell)[0]) for cell in column() if cell.strip()]

    before = column()
    assert any("[" in cell for cell in before) and not all(map(str.strip, before)) and max(figures()) >= 10
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    assert figures() == sorted(figures()) and not column()[-1].strip() and len(column()) == len(before)
    head.get_by_role("button").focus()
    tab.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    assert figures() == sorted(figures(), reverse=True) and not column()[-1].strip()
    tab.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") is None and column() == before


def test_the_points_of_the_figure_say_what_they_are(tab, address):
    """Under the mouse; its alt text says the same."""
    tab.goto(f"{address}/book/results.html")
    alt, spots = tab.locator(".spotted img").get_attribute("alt"), tab.locator(".spots span")
    assert spots.count() > 5
    for spot in spots.all():
        says = spot.get_attribute("data-says")
        assert all(figure in alt for figure in re.findall(r"[\d.]+ years(?: \[.*?\])?", says)), says
    picture, spot = tab.locator(".spotted img").bounding_box(), spots.first.bounding_box()
    assert 0 < spot["x"] - picture["x"] < picture["width"] and 0 < spot["y"] - picture["y"] < picture["height"]
    shown = "getComputedStyle(document.querySelector('.spots span'), '::after').content"
    assert tab.evaluate(shown) == "none"
    spots.first.hover(force=True)
    assert spots.first.get_attribute("data-says").split(":")[0] in tab.evaluate(shown)


@pytest.mark.parametrize("page", ["book/results", "notebooks/08_comparison"])
def test_a_page_prints(tab, address, page):
    """In light, without the side bars, nothing cut off, nothing over something else."""
    tab.set_viewport_size({"width": 800, "height": 1130})  # A4, about
    tab.goto(f"{address}/{page}.html")
    tab.evaluate(THEME, "dark")
    tab.emulate_media(media="print")
    tab.wait_for_function("document.documentElement.dataset.theme === 'light'")
    bars = (".bd-sidebar-primary", ".bd-sidebar-secondary", ".bd-header-article")
    assert not [bar for bar in bars if tab.locator(bar).is_visible()]
    assert not tab.evaluate(STICKS_OUT)
    article = tab.locator("article.bd-article").bounding_box()
    assert article["x"] >= 0 and article["width"] > 600
    assert not tab.evaluate("""() => [...document.querySelectorAll('article.bd-article > section > *')]
        .map(one => one.getBoundingClientRect()).filter(box => box.height)
        .filter((box, at, all) => at && box.top < all[at - 1].bottom - 1)""")
    tab.emulate_media(media="screen")
    tab.wait_for_function("document.documentElement.dataset.theme === 'dark'")


def test_without_javascript_a_page_is_whole(browser, address):
    with browser.new_context(java_script_enabled=False, viewport=WIDE) as context:
        page = context.new_page()
        page.goto(f"{address}/book/results.html")
        assert page.locator("table").first.is_visible() and page.locator("article img").first.is_visible()
        assert not page.locator("button.sort").count()
