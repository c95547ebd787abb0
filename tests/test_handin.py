"""The hand-in: who hands in, one page of the book that fetches nothing, the zip, the PDF of a real browser."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import zipfile
from datetime import date
from pathlib import Path

import nbformat
import pypdf
import pytest
import stubs
import yaml
from bs4 import BeautifulSoup
from test_report import home as full_home  # noqa: F401: a fixture, as is profile
from test_report import pretend, profile  # noqa: F401

from agegender import handin, profiles, report

ADA = handin.Student("Ada Lovelace", "12345", "ML 101")
DAY = date(2026, 11, 27)
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c4944415478da63f8cfc0000003010100"
    "f7037a420000000049454e44ae426082"
)
ARTICLE = """<html><head><link href="../_static/x.css" rel="stylesheet"><script src="x.js"></script></head><body>
<nav>side bar</nav><article class="bd-article"><script>1</script><section id="top">
<h1>Title of {page}<a class="headerlink" href="#top">#</a></h1>
<p id="same">See <a href="#same">above</a>, <a href="{up}book/data.html#same">data</a>,
<a href="{up}book/data.html">all</a>,
<a href="https://example.org/x">elsewhere</a>.</p>
<div class="pst-scrollable-table-container"><table class="table"><tr><th>wide</th></tr><tr>{cells}</tr></table></div>
<div class="cell"><details class="hide above-input"><summary aria-label="Toggle">
<p class="collapsed">The parameters of this run</p><p class="expanded">Hide</p></summary><div class="cell_input"><pre>secret_width = 4</pre></div></details></div>
<img alt="A curve" src="{up}_images/curve.png"/>{more}
<div class="toctree-wrapper compound"></div></section></article><footer>foot</footer></body></html>"""


def soup(text: str) -> BeautifulSoup:
    return BeautifulSoup(text, "html.parser")


# ------------------------------------------------------------------------------------------- who hands it in


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("Ada Lovelace", "ada-lovelace-x1-7"),
        ("  Zoë   Łuczak-Øster ", "zoe-luczak-oster-x1-7"),
        ("Jürgen Groß", "jurgen-gross-x1-7"),
        ("李小龙", "李小龙-x1-7"),
        ("Фёдор Достоевский", "фёдор-достоевский-x1-7"),
        ("नरेन्द्र", "नरेन्द्र-x1-7"),
        ("محمد \u200cرضا", "محمد-رضا-x1-7"),
        ('../..\\O"Brien: <b>', "o-brien-b-x1-7"),
    ],
)
def test_a_name_becomes_the_name_of_a_file(name, file):
    assert handin.student(name, "X1/7", "ML").file == file


def test_a_long_name_gives_way_in_the_file_and_stays_whole_on_the_page():
    who = handin.student("李" * 140, "s" * 40, "ML")
    assert len(who.file.encode()) <= 200 and who.file.endswith("s" * 40) and len(who.name) == 140


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("", "1", "c"), ["NAME is missing"]),
        (("Ada", "  ", ""), ["ID is missing", "COURSE is missing"]),
        (("Ada\nLovelace", "1", "c"), ["NAME holds what can't be seen", "U+000A"]),
        (("Ada", "1\x00", "c"), ["ID holds", "U+0000"]),
        (("Ada", "1", "ML\u202e101"), ["COURSE holds", "U+202E"]),
        (("-- !", "1", "c"), ["NAME is '-- !': it needs a letter"]),
        (("Ada", "1" * 41, "c"), ["ID has 41 characters; 40 at most"]),
    ],
)
def test_what_is_missing_or_odd_is_refused_by_name(given, said):
    with pytest.raises(ValueError) as raised:
        handin.student(*given)
    assert all(words in str(raised.value) for words in said) and 'NAME="Ada Lovelace"' in str(raised.value)


def test_make_takes_the_name_as_it_was_typed_and_never_that_of_the_machine(tmp_path):
    if not shutil.which("make"):
        pytest.skip("there is no make here")
    (tmp_path / "ready").touch()
    (tmp_path / "python").write_text('#!/bin/sh\nprintf "<%s>" "$@"\n')
    (tmp_path / "python").chmod(0o755)
    command = ["make", "-s", "hand-in", f"BIN={tmp_path}", f"READY={tmp_path}/ready", "MAKE=true", "ID=007", "COURSE=ML 101"]

    def said(*more):
        environment = {"PATH": os.environ["PATH"], "NAME": "machine"}
        return subprocess.run([*command, *more], cwd=stubs.TOP, env=environment, capture_output=True, text=True).stdout

    assert "<--name=>" in said() and "<--id=007><--course=ML 101>" in said()
    assert "<--name=O'Brien $x \"q\" `id`>" in said("NAME=O'Brien $x \"q\" `id`")


# ------------------------------------------------------------------------------------------- one page of all


PAGES = {"book/index": "", "book/data": "The data", "book/methods": "The models", "book/status": "This edition"}


@pytest.fixture
def home(full_home):
    """The copy with a book of few pages: the whole one takes a while to compute."""
    shutil.rmtree(full_home / "book")
    toc = {"format": "jb-book", "root": "book/index", "parts": []}
    for page, part in PAGES.items():
        (full_home / page).parent.mkdir(exist_ok=True)
        (full_home / f"{page}.md").write_text(f"# {page}\n")
        if part:
            toc["parts"].append({"caption": part, "chapters": [{"file": page}]})
    toc["parts"][1]["chapters"] += [{"file": "notebooks/03_model_a"}, {"file": "notebooks/08_comparison"}]
    (full_home / "book/_toc.yml").write_text(yaml.safe_dump(toc))
    return full_home


@pytest.fixture
def built(home, profile):
    """A staged site and pages such as Sphinx builds, without its seconds."""
    return build(home, profile)


def build(home: Path, profile: profiles.Profile, show_faces: bool = True, **more: str):
    top = home / "_build/tiny"
    report.stage(profile, top / "site", show_faces)
    (top / "html/_images").mkdir(parents=True, exist_ok=True)
    (top / "html/_static").mkdir(exist_ok=True)
    (top / "html/_images/curve.png").write_bytes(PNG)
    (top / "html/_static/pygments.css").write_text("html[data-theme=light] .highlight .k { color: #7928a1 }")
    for page in handin._pages(profile):
        path = top / "html" / f"{page}.html"
        path.parent.mkdir(exist_ok=True)
        cells = "".join(f"<td>column_{n:02}_of_a_table</td>" for n in range(12))
        text = ARTICLE.format(page=page, up="../", cells=cells, more=more.get(page.split("/")[-1], ""))
        path.write_text(text, encoding="utf-8")
    (top / "edition.json").write_text(json.dumps(report.edition(profile, show_faces)))
    return profile


def test_one_page_holds_the_book_and_fetches_nothing(built):
    page = soup(handin.document(built, ADA, DAY, True))
    cover = page.select_one("header.cover").get_text(" ")
    for words in ("Ada Lovelace", "12345", "ML 101", "27 November 2026", "drawn by a program", "03_model_a, a_long", "shown"):
        assert words in cover
    assert "some faces" in cover and page.title.get_text() == "Age and gender from a face"
    assert handin.fetched(page) == []
    policy = page.select_one("meta[http-equiv]")["content"]
    assert "default-src 'none'" in policy and "script" not in policy
    assert not page.select("script, link, button, .headerlink, .toctree-wrapper, footer") and "side bar" not in page.get_text()
    heads = [head.get_text() for head in page.select("main h1")]
    assert heads[0] == "Title of book/index" and heads[-1] == "Title of book/status"
    assert "Title of notebooks/a_long (a_long)" in heads and len(heads) == len(handin._pages(built))
    assert [link["href"] for link in page.select("nav.contents a")] == [f"#{part['id']}" for part in page.select(".chapter")]
    pictures = page.select("img")
    assert len(pictures) == len(heads) and all(p["src"].startswith("data:image/png;base64,iVBOR") for p in pictures)
    model = page.select_one("#notebooks-03_model_a")
    assert [a["href"] for a in model.select("a")] == [
        "#notebooks-03_model_a--same", "#book-data--same", "#book-data", "https://example.org/x",
    ]  # fmt: skip
    assert model.select_one("details").find("summary").get_text() == "The parameters of this run"


def test_the_printed_copy_says_where_the_folded_is_and_has_page_numbers(built):
    page = soup(handin.document(built, ADA, DAY, True, {"book/data": 17}))
    assert not page.select("details") and "secret_width" not in page.get_text()
    assert page.select_one("#notebooks-a_long p.hide").get_text() == (
        "The parameters of this run: in report.html and a_long.ipynb."
    )
    assert page.select_one('nav a[href="#book-data"] span').get_text() == "17"


def test_tables_of_pandas_are_set_for_reading(home, profile):
    row = "<tr><th>{}</th><td>{}</td><td>{}</td></tr>"
    rows = row.format("a", "one by one", "7.5 [6.1, 9.0]") + row.format("b", "", "12")
    head = "<thead><tr><th></th><th>words</th><th>years</th></tr></thead>"
    build(home, profile, methods=f'<table class="dataframe">{head}<tbody>{rows}</tbody></table><table></table>')
    table = soup(handin.document(profile, ADA, DAY, True)).select_one("table.dataframe")
    left = [cell.get_text() for cell in table.select(".text-left")]
    assert left == ["", "words", "a", "one by one", "b", ""]
    assert "7.5 [6.1,\N{NO-BREAK SPACE}9.0]" in table.get_text()


def test_names_are_text_wherever_they_stand(built):
    who = handin.student('</style><b>"\\ & Ö', "1", "<i>")
    page = soup(handin.document(built, who, DAY, True))
    assert not page.select("b, i") and who.name in page.select_one(".cover").get_text()
    assert page.select_one("meta[name=author]")["content"] == who.name
    assert len(page.select("style")) == 1 and "\\3c /style>" in page.style.get_text()


def test_formulas_become_pictures(home, profile):
    tex = r'<span class="math notranslate nohighlight">\(\frac{a}{b}\)</span>'
    build(home, profile, methods=tex)
    page = soup(handin.document(profile, ADA, DAY, True))
    picture = page.select_one("#book-methods .math img")
    assert picture["alt"] == r"\frac{a}{b}" and picture["src"].startswith("data:image/svg+xml;base64,")
    assert page.select_one("#book-methods .math").get_text() == ""
    build(home, profile, methods=tex.replace("frac", "nosuch"))
    with pytest.raises(ValueError, match=r"book/methods: matplotlib can't draw the formula \\nosuch"):
        handin.document(profile, ADA, DAY, True)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ('<a href="nowhere.html">x</a>', "book/methods links to nowhere.html, which is no page"),
        ('<a href="data.html#gone">x</a>', "a link leads nowhere: #book-data--gone"),
        ('<img src="../_images/gone.png">', "book/methods shows ../_images/gone.png, which is not there"),
        ('<iframe src="https://example.org"></iframe>', "<iframe> fetches https://example.org"),
        ("<h1 id='same'></h1>", "an anchor is there twice: #book-methods--same"),
    ],
)
def test_a_page_that_does_not_stand_alone_is_refused(home, profile, more, said):
    build(home, profile, methods=more)
    with pytest.raises(ValueError) as raised:
        handin.document(profile, ADA, DAY, True)
    assert said in str(raised.value)


@pytest.mark.parametrize(
    "tag",
    [
        '<img src="a.png">',
        '<img src="//cdn.example.org/a.png">',
        '<img srcset="data:image/png;base64,x 1x, b.png 2x">',
        '<script src="https://cdn.example.org/mathjax.js"></script>',
        '<link rel="stylesheet" href="x.css">',
        '<video poster="p.png"></video>',
        '<object data="x.svg"></object>',
        "<style>@import 'x.css';</style>",
        "<style>@font-face { src: url(x.woff) }</style>",
        "<p style=\"background: url('x.png')\"></p>",
        '<meta http-equiv="Refresh" content="0; url=x.html">',
        '<svg><use xlink:href="x.svg#a"></use></svg>',
    ],
)
def test_whatever_a_browser_would_fetch_is_found(tag):
    assert len(handin.fetched(soup(f"<html><body>{tag}</body></html>"))) == 1


def test_what_a_page_holds_itself_and_links_to_click_on_are_not_fetched():
    held = '<img src="data:image/png;base64,x"><svg><use href="#a"></use></svg><a href="https://example.org">x</a>'
    assert handin.fetched(soup(held + "<style>p { background: url(data:image/png;base64,x) }</style>")) == []


# ------------------------------------------------------------------------------------------- the zip


def test_the_zip(built, home):
    path = handin.make(built, ADA, with_pdf=False)
    assert path == home / "_build/tiny/hand-in/ada-lovelace-12345.zip"
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    with zipfile.ZipFile(path) as archive:
        files = {name.removeprefix("ada-lovelace-12345/"): archive.read(name).decode() for name in archive.namelist()}
    assert sorted(files) == sorted([
        "README.md", "report.html", "tiny.yml",
        *(f"notebooks/{name}.ipynb" for name in ("03_model_a", "a_long", "08_comparison")),
        *(f"provenance/{name}.json" for name in ("03_model_a", "a_long", "08_comparison")),
    ])  # fmt: skip
    assert "\nmake report PROFILE=tiny\nmake test\n" in files["README.md"] and "report.pdf" not in files["README.md"]
    assert json.loads(files["provenance/a_long.json"])["parameters"]["epochs"] == 9
    notebook = nbformat.reads(files["notebooks/03_model_a.ipynb"], 4)
    assert notebook.cells[0].source.startswith("# Stub of 03_model_a\n\n> **Drawn faces.** These faces are drawn")
    assert any("image/png" in output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", []))
    for name, text in files.items():
        assert str(home) not in text, name
    with zipfile.ZipFile(path) as archive:
        assert all(entry.external_attr >> 16 == 0o644 for entry in archive.infolist()), "others may read it"


def test_notebooks_in_the_zip_lead_to_the_report_beside_them(built, home):
    page = home / "_build/tiny/site/notebooks/a_long.ipynb"
    notebook = nbformat.read(page, 4)
    notebook.cells[0].source += " See [how](../book/methods.md#recipes) and [the other](03_model_a.ipynb)."
    nbformat.write(notebook, page)
    source = nbformat.reads(handin._notebook(built, "notebooks/a_long"), 4).cells[0].source
    assert source.endswith("See [how](../report.html#book-methods) and [the other](03_model_a.ipynb).")


def test_the_profile_in_the_zip_repeats_the_runs(built, home):
    again = home / "again" / "tiny.yml"
    again.parent.mkdir()
    again.write_text(handin._as_run(built), encoding="utf-8")
    read = profiles.read(again)
    assert {name: run.parameters for name, run in read.runs.items()} == {
        name: run.parameters for name, run in built.runs.items()
    }


def test_the_folders_of_real_faces_stay_here(home):
    read = profiles.read("tiny", {"data": "/secret/place/faces"})
    for run in read.runs.values():
        pretend(home, run, drawn=False)
    build(home, read)
    with zipfile.ZipFile(handin.make(read, ADA, with_pdf=False)) as archive:
        texts = {name: archive.read(name).decode() for name in archive.namelist()}
    assert not [name for name, text in texts.items() if "/secret" in text]
    readme = texts["ada-lovelace-12345/README.md"]
    assert "make report PROFILE=tiny DATA=FOLDER\n" in readme and "some faces: faces of people" in readme


def test_without_faces_the_notebooks_have_none_either(home, profile):
    build(home, profile, show_faces=False)
    with zipfile.ZipFile(handin.make(profile, ADA, show_faces=False, with_pdf=False)) as archive:
        readme = archive.read("ada-lovelace-12345/README.md").decode()
        notebook = nbformat.reads(archive.read("ada-lovelace-12345/notebooks/03_model_a.ipynb").decode(), 4)
    shown = [
        list(output.data)
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if output.output_type == "display_data"
    ]
    assert shown == [["text/plain"], ["image/png", "text/plain"]], "a face and a curve"
    assert "SHOW_FACES=false" in readme


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda home: shutil.rmtree(home / "runs/tiny/a_long"), "a_long: it has not run"),
        (
            lambda home: stubs.write_profile(home, {"03_model_a": {"epochs": 4}, "a_long": {"notebook": "03_model_a"}}),
            "03_model_a: it is stale: it ran with epochs = 3",
        ),
        (lambda home: (home / "_build/tiny/edition.json").unlink(), "make it first"),
        (lambda home: (home / "book/data.md").write_text("# Data\n"), "was not made from these runs and this book"),
    ],
)
def test_what_is_not_finished_or_stale_is_not_handed_in(built, home, spoil, said):
    spoil(home)
    with pytest.raises(ValueError) as raised:
        handin.make(profiles.read("tiny"), ADA, with_pdf=False)
    assert said in str(raised.value) and not (home / "_build/tiny/hand-in").exists()


def test_a_report_with_faces_is_not_handed_in_as_one_without(built):
    with pytest.raises(ValueError, match="with show_faces=false: make it first"):
        handin.make(built, ADA, show_faces=False, with_pdf=False)


# ------------------------------------------------------------------------------------------- the browser


@pytest.fixture
def no_browser(monkeypatch, tmp_path):
    for name in ("BROWSER_PATH", "PLAYWRIGHT_BROWSERS_PATH", "XDG_CACHE_HOME", "LOCALAPPDATA", "PROGRAMFILES", "PROGRAMFILES(X86)"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    if Path("/Applications/Google Chrome.app").exists():
        pytest.skip("the browser of this Mac can't be hidden")


def test_without_a_browser_it_says_what_to_do(no_browser, capsys):
    said = handin.main(["--name=Ada", "--id=1", "--course=c", "--check"]), capsys.readouterr().err
    assert said[0] == 1 and "no browser to print the PDF was found" in said[1] and "PDF=false" in said[1]
    assert handin.main(["--name=Ada", "--id=1", "--course=c", "--pdf=false", "--check"]) == 0


def test_browsers_are_found_where_they_are(no_browser, monkeypatch, tmp_path):
    own = tmp_path / ".cache/ms-playwright/chromium-1200/chrome-linux64/chrome"
    own.parent.mkdir(parents=True)
    own.touch()
    assert handin.browser() == str(own)
    for name in ("chromium", "mine"):
        (tmp_path / name).write_text("#!/bin/sh\necho 'no display' >&2\nexit 5\n")
        (tmp_path / name).chmod(0o755)
    assert handin.browser() == str(tmp_path / "chromium")
    monkeypatch.setenv("BROWSER_PATH", str(tmp_path / "mine"))
    assert handin.browser() == str(tmp_path / "mine")
    if os.name == "posix":
        with pytest.raises(ValueError, match=r"printed nothing \(exit 5\):\n  no display"):
            handin.printed(handin.browser(), "<p>x</p>", tmp_path)
    monkeypatch.setenv("BROWSER_PATH", str(tmp_path / "gone"))
    with pytest.raises(ValueError, match="BROWSER_PATH=.*gone: there is no such program"):
        handin.browser()


def test_the_pdf(built, tmp_path):
    """Printed by a real browser: what it says of itself, its pages' numbers, its links, nothing beyond its edges."""
    browser_or_skip()
    who = handin.student("Zoë Łuczak", "s-1", "ML & more")
    reader = pypdf.PdfReader(io.BytesIO(handin.pdf(built, who, DAY, True, tmp_path)))
    check_pdf(reader, who, handin._pages(built))
    texts = [page.extract_text() for page in reader.pages]
    assert "Zoë Łuczak" in texts[0] and "27 November 2026" in texts[0]
    ends = []

    def seen(text, outer, inner, *_):
        if "column_11" in text:
            ends.append(inner[4] * outer[0] + inner[5] * outer[2] + outer[4])

    for page in reader.pages:
        page.extract_text(visitor_text=seen)
    width = float(reader.pages[0].mediabox.width)
    assert len(ends) == len(handin._pages(built)) and width / 2 < max(ends) < width - 80, "the last column is on the page"
    assert "secret_width" not in "".join(texts)


def test_letters_that_no_font_has_are_named_not_printed_as_boxes(built, tmp_path):
    browser_or_skip()
    with pytest.raises(ValueError, match="no font on this machine has all letters of Ada \ue000"):
        handin.pdf(built, handin.student("Ada \ue000", "1", "ML"), DAY, True, tmp_path)


def browser_or_skip() -> None:
    try:
        handin.browser()
    except ValueError:
        pytest.skip("no Chrome, Chromium or Edge here to print a PDF")


def check_pdf(reader: pypdf.PdfReader, who: handin.Student, pages) -> None:
    """The promises that hold for any hand-in's PDF."""
    count = len(reader.pages)
    assert reader.metadata.title == "Age and gender from a face" and reader.metadata.author == who.name
    assert who.id in reader.metadata.subject and who.course in reader.metadata.subject
    assert reader.trailer["/Root"]["/MarkInfo"]["/Marked"] and reader.trailer["/Root"]["/Lang"] == "en"
    texts = [page.extract_text() for page in reader.pages]
    for number, text in enumerate(texts[1:], 2):
        assert f"{number} / {count}" in text and who.id in text, number
    begins = handin.numbers(reader, pages)
    assert len(set(begins.values())) == len(begins), "each chapter begins a page"
    for page, number in begins.items():
        assert re.search(rf"\b{number}\b", texts[1]), f"{page}: its page is not in the contents"
    outline = [item for item in reader.outline if not isinstance(item, list)]
    assert [reader.get_destination_page_number(item) + 1 for item in outline] == [2, *begins.values()]
    inner, outer = 0, []
    for page in reader.pages:
        for note in page.get("/Annots", []):
            note = note.get_object()
            action = note.get("/A", {})
            if "/URI" in action:
                outer.append(action["/URI"])
            else:
                to = note.get("/Dest") or action.get("/D")
                assert not isinstance(to, str) or to in reader.named_destinations, to
                inner += 1
    assert inner >= len(begins) and outer and all(re.match("https?://", address) for address in outer)
