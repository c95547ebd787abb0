"""Handing in: one zip with the report as PDF and as one HTML file, the executed notebooks and what they ran with.

``python -m agegender.handin --profile sample --name "Ada Lovelace" --id 12345 --course "ML 101"`` once the report is
made; ``make hand-in`` does both. A Chrome, Chromium or Edge on this machine prints the PDF.
"""

from __future__ import annotations

import argparse
import base64
import html
import io
import json
import mimetypes
import os
import posixpath
import re
import shutil
import subprocess
import sys
import time
import unicodedata
import zipfile
from dataclasses import dataclass, fields
from datetime import date
from pathlib import Path
from typing import Any, Iterator
from urllib.parse import unquote

import nbformat
import pypdf
import yaml
from bs4 import BeautifulSoup, Tag

import agegender
from agegender import profiles, provenance, report
from agegender.places import home, written_whole
from agegender.profiles import Profile

STYLE = Path(__file__).with_name("handin.css")
LATIN = str.maketrans({"ł": "l", "ø": "o", "đ": "d", "ð": "d", "þ": "th", "æ": "ae", "œ": "oe", "ı": "i"})
JOINERS = "\u200c\u200d"  # unseen, and part of names in Persian, Hindi and others
ADVICE = """\
Chrome, Chromium or Edge prints the PDF, version 131 (November 2024) or newer. Any of these helps:
  - install one of them; where it lies in an unusual place, set BROWSER_PATH to the program;
  - pip install playwright && playwright install --with-deps chromium: in Colab, say;
  - PDF=false: a zip without the PDF. The report.html in it prints from any browser."""
# In the printed copy alone: a table whose words don't fit the column is set smaller, by as much as is needed.
FIT = """<script>addEventListener("load", () => {
  for (const table of document.querySelectorAll("table")) {
    const room = table.parentElement.clientWidth, has = table.getBoundingClientRect().width;
    if (has > room) table.style.zoom = Math.floor(100 * room / has) / 100;
  }
});</script>"""


# ------------------------------------------------------------------------------------------- who hands it in


@dataclass(frozen=True)
class Student:
    """Who hands the report in, and for which course: text as it goes onto the title page."""

    name: str
    id: str
    course: str

    @property
    def file(self) -> str:
        """Name and ID as the name of a file without its end, at most 200 bytes; the name gives way."""
        name, own = slug(self.name), slug(self.id)
        while len(f"{name}-{own}".encode()) > 200:
            name = name[:-1]
        return f"{name.rstrip('-')}-{own}"


def student(name: str, id: str, course: str) -> Student:
    """What was given, with single spaces; ValueError with every fault of it."""
    given = {"NAME": name, "ID": id, "COURSE": course}
    given = {key: unicodedata.normalize("NFC", value or "").strip(" ") for key, value in given.items()}
    faults = []
    for key, value in given.items():
        most = 40 if key == "ID" else 150
        unseen = {c for c in value if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")} - set(JOINERS)
        odd = sorted(f"U+{ord(c):04X}" for c in unseen)
        if odd:
            faults.append(f"{key} holds what can't be seen or printed ({', '.join(odd)}): type it anew, on one line")
        elif not slug(value):
            faults.append(f"{key} is {value!r}: it needs a letter or a digit" if value else f"{key} is missing")
        elif len(value) > most:
            faults.append(f"{key} has {len(value)} characters; {most} at most")
    if faults:
        example = 'make hand-in NAME="Ada Lovelace" ID=12345 COURSE="ML 101"'
        lines = "\n".join(f"  - {fault}" for fault in faults)
        raise ValueError(f"nothing is handed in, for\n{lines}\nAs in: {example}")
    return Student(*(" ".join(value.split()) for value in given.values()))


def slug(text: str) -> str:
    """`text` for a file's name: small letters and digits, `-` for all else. Latin letters lose their accents, letters
    of other scripts stay as they are: Zoë Łuczak is zoe-luczak, 李小龙 is 李小龙."""
    letters = []
    for letter in unicodedata.normalize("NFC", text).casefold().translate(LATIN):
        base = unicodedata.normalize("NFD", letter)[0]
        letters.append(base if base.isascii() else letter)
    return "-".join(re.findall(r"[^\0]+", "".join(c if unicodedata.category(c)[0] in "LMN" else "\0" for c in letters)))


# ------------------------------------------------------------------------------------------- one page of all


def document(profile: Profile, who: Student, day: date, show_faces: bool, printed: dict[str, int] | None = None) -> str:
    """The built book as one HTML page that fetches nothing: title page, contents, every chapter.

    `printed`: page numbers of the chapters, for the copy that is printed (empty if they are not known yet); None for
    the one that is handed in.
    """
    pages = _pages(profile)
    chapters = {page: _chapter(profile, page, own, pages, printed is not None) for page, (_, own) in pages.items()}
    titles = {page: chapter.find("h1").get_text() for page, chapter in chapters.items()}
    config = yaml.safe_load((home() / "_config.yml").read_text(encoding="utf-8"))
    pygments = _built(profile) / "_static" / "pygments.css"
    heads = [
        f"#{_key(page)} {{ page: chapter{number} }}\n"
        f"@page chapter{number} {{ @top-right {{ content: {_css(title)} }} }}"
        for number, (page, title) in enumerate(titles.items())
    ]
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    policy += "" if printed is None else "; script-src 'unsafe-inline'"
    style = "\n".join([
        pygments.read_text(encoding="utf-8"),
        STYLE.read_text(encoding="utf-8"),
        f"@page {{ @top-left {{ content: {_css(f'{who.name}, {who.id}')} }} }}",
        *heads,
    ])  # fmt: skip
    made = f"""<!DOCTYPE html>
<html lang="en" data-theme="light"{"" if printed is None else ' class="printed"'}>
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="only light">
<meta name="author" content="{html.escape(who.name)}">
<title>{html.escape(config["title"])}</title>
<style>
{style}
</style>
{"" if printed is None else FIT}
</head>
<body>
{_title_page(profile, who, day, show_faces, config["title"])}
{_contents(pages, titles, printed)}
<main>
{"".join(str(chapter) for chapter in chapters.values())}
</main>
</body>
</html>
"""
    whole = BeautifulSoup(made, "html.parser")
    if wrong := [*fetched(whole), *_dead(whole)]:
        raise ValueError("the report does not stand alone:\n" + "\n".join(f"  - {fault}" for fault in wrong))
    return made


def _pages(profile: Profile) -> dict[str, tuple[str, str]]:
    """Every page of the book, in its order: the part it is in ("" for the first page) and, for a further run of a
    notebook, the run's name."""
    toc = yaml.safe_load((home() / "_build" / profile.name / "site" / "_toc.yml").read_text(encoding="utf-8"))
    pages = {toc["root"]: ("", "")}
    for part in toc["parts"]:
        for chapter in part["chapters"]:
            pages[chapter["file"]] = (part["caption"], "")
            pages |= {section["file"]: (part["caption"], section["title"]) for section in chapter.get("sections", [])}
    return pages


def _built(profile: Profile) -> Path:
    return home() / "_build" / profile.name / "html"


def _key(page: str) -> str:
    """The anchor of a page in the document."""
    return page.replace("/", "-")


def _chapter(profile: Profile, page: str, own: str, pages: dict, printed: bool) -> Tag:
    """A built page as a chapter: ids that nobody else has, links into the document, pictures inside it."""
    path = _built(profile) / f"{page}.html"
    article = BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser").select_one("article.bd-article")
    for tag in article.select("a.headerlink, script, button, .toctree-wrapper"):
        tag.decompose()
    for link in article.select("a.image-reference"):  # to the picture's own file
        link.unwrap()
    if own:
        article.find("h1").append(f" ({own})")
    for formula in article.select(".math"):
        _drawn(formula, page)
    ids = {tag["id"] for tag in article.select("[id]")}
    for tag in article.select("[id]"):
        tag["id"] = f"{_key(page)}--{tag['id']}"
    for style in article.select("style"):  # of pandas' styled tables
        style.string = re.sub(
            r"#([\w-]+)", lambda m: f"#{_key(page)}--{m[1]}" if m[1] in ids else m[0], style.get_text()
        )
    for link in article.select("a[href]"):
        link["href"] = _target(link["href"], page, pages)
    for picture in article.select("img[src]"):
        if not picture["src"].startswith("data:"):
            file = path.parent / unquote(picture["src"])
            if not file.is_file():
                raise ValueError(f"{page} shows {picture['src']}, which is not there")
            kind = mimetypes.guess_type(file.name)[0]
            picture["src"] = f"data:{kind};base64,{base64.b64encode(file.read_bytes()).decode()}"
    for table in article.select("table"):
        _readable(table)
    for fold in article.select("details.hide"):
        _fold(fold, page, printed)
    for fold in article.select("details:not(.hide)") if printed else []:
        fold["open"] = ""  # nobody can open it on paper
    article.name, article.attrs = "section", {"class": ["chapter"], "id": _key(page)}
    return article


def _target(href: str, page: str, pages: dict) -> str:
    """Where a link of `page` leads in the document; other addresses stay."""
    if re.match(r"[a-z][a-z0-9+.-]*:", href, re.I):
        return href
    to, _, anchor = href.partition("#")
    to = posixpath.normpath(posixpath.join(posixpath.dirname(page), unquote(to))).removesuffix(".html") if to else page
    if to not in pages:
        raise ValueError(f"{page} links to {href}, which is no page of the report: it can't go along")
    return f"#{_key(to)}--{anchor}" if anchor else f"#{_key(to)}"


def _readable(table: Tag) -> None:
    """Keep intervals in one line; set columns of words in pandas' tables flush left (numbers are flush right)."""
    for cell in table.select("td"):
        for text in cell.find_all(string=re.compile(r"\[.*,.*\]")):
            text.replace_with(re.sub(r"\[[^\]]{,24}\]", lambda m: m[0].replace(" ", "\N{NO-BREAK SPACE}"), text))
    if "dataframe" not in table.get("class", []):
        return
    rows = [row.select("th, td")[::-1] for row in table.select("tr")]  # from the right: cells of an index span rows
    for column in range(max(map(len, rows), default=0)):
        cells = [row[column] for row in rows if column < len(row)]
        body = [cell.get_text() for cell in cells if cell.name == "td" and cell.get_text().strip()]
        if 2 * sum(bool(re.match(r"\s*[^\W\d_]{2}", text)) for text in body) >= len(body):
            for cell in cells:
                cell["class"] = "text-left"


def _fold(fold: Tag, page: str, printed: bool) -> None:
    """What a notebook hides: folded in HTML; on paper a line that says where it is."""
    says = fold.select_one(".collapsed").get_text().strip().removeprefix("Show ")
    says = says[:1].upper() + says[1:]
    summary = fold.find("summary")
    summary.clear()
    summary.string = says
    del summary["aria-label"]
    fold["class"] = ["hide"]
    if printed:
        fold.name = "p"
        fold.clear()
        fold.string = f"{says}: in report.html and {posixpath.basename(page)}.ipynb."


def _drawn(formula: Tag, page: str) -> None:
    """Put a picture in the place of the TeX that the book's pages leave to MathJax, which comes from the network."""
    from matplotlib import mathtext

    found = re.search(r"\\[(\[](.*)\\[)\]]", formula.get_text(), re.S)
    if not found:
        raise ValueError(f"{page}: there is no formula in {formula}")
    buffer = io.BytesIO()
    try:
        depth = mathtext.math_to_image(f"${' '.join(found[1].split())}$", buffer, dpi=72, format="svg")
    except ValueError as error:
        raise ValueError(f"{page}: matplotlib can't draw the formula {found[1].strip()}: {error}") from None
    source = f"data:image/svg+xml;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    picture = Tag(name="img", attrs={"src": source, "alt": found[1].strip(), "style": f"vertical-align: -{depth}pt"})
    formula.clear()
    formula.append(picture)


def fetched(page: BeautifulSoup) -> list[str]:
    """What a browser would fetch for `page`, beyond what it holds itself: nothing, if it stands alone."""
    found = []
    for tag in page.find_all(True):
        addresses = [tag[key] for key in ("src", "poster", "data", "background", "xlink:href") if tag.has_attr(key)]
        addresses += [tag["href"]] if tag.has_attr("href") and tag.name not in ("a", "area") else []
        addresses += [part.split()[0] for part in re.split(r",\s+", tag.get("srcset", "")) if part.strip()]
        styles = tag.get("style", "") + (tag.get_text() if tag.name == "style" else "")
        addresses += re.findall(r"""(?:url\(|@import\s)\s*["']?([^"')\s]+)""", styles)
        if tag.name == "meta" and tag.get("http-equiv", "").lower() == "refresh":
            addresses.append(tag.get("content", ""))
        outer = [address for address in addresses if not address.startswith(("data:", "#"))]
        found += [f"<{tag.name}> fetches {address[:100]}" for address in outer]
    return found


def _dead(page: BeautifulSoup) -> list[str]:
    """Links that lead nowhere in `page`, and anchors that are there twice."""
    ids = [tag["id"] for tag in page.select("[id]")]
    dead = {link["href"] for link in page.select('a[href^="#"]')} - {f"#{id}" for id in ids}
    return [f"a link leads nowhere: {href}" for href in sorted(dead)] + [
        f"an anchor is there twice: #{id}" for id in sorted({id for id in ids if ids.count(id) > 1})
    ]


def _css(text: str) -> str:
    """`text` as a string of CSS inside <style>."""
    return '"' + re.sub(r'[\\"<]', lambda m: f"\\{ord(m[0]):x} ", text) + '"'


def _title_page(profile: Profile, who: Student, day: date, show_faces: bool, title: str) -> str:
    code = provenance.git()
    rows = {
        "Name": who.name,
        "ID": who.id,
        "Course": who.course,
        "Date": f"{day.day} {day:%B %Y}",
        "Faces": _faces(profile),
        "Pictures of faces": "shown" if show_faces else "left out",
        "What was run": f"{profile.title}. {profile.description} Profile {profile.name}: {', '.join(profile.runs)}.",
        "Code": _commit(code),
    }
    lines = [f'<dt>{key}</dt><dd dir="auto">{html.escape(value)}</dd>' for key, value in rows.items()]
    return f'<header class="cover">\n<p class="title">{html.escape(title)}</p>\n<dl>{"".join(lines)}</dl>\n</header>'


def _faces(profile: Profile) -> str:
    """Each source of faces in words, drawn or real, and which runs read it if there are several."""
    runs, read = {}, {}
    for run in profile.runs.values():
        data = report.data(profile, run)
        source = data["title"], data["drawn"]
        runs.setdefault(source, []).append(run.name)
        read[source] = f"{data['read']:,} faces" if "read" in data else "faces"
    return "; ".join(
        f"{title}: {read[title, drawn]} {'drawn by a program' if drawn else 'of people'}"
        + (f" ({', '.join(names)})" if len(runs) > 1 else "")
        for (title, drawn), names in runs.items()
    )


def _commit(code: dict[str, Any]) -> str:
    if code["commit"] is None:
        return "commit unknown (no git here)"
    at = f" of {address}" if (address := provenance.web_address()) else ""
    return f"commit {code['commit']}{at}" + (", with changes that are not in it" if code["changed"] else "")


def _contents(pages: dict, titles: dict[str, str], printed: dict[str, int] | None) -> str:
    lines, above = [], ""
    for page, (part, own) in pages.items():
        if part != above:
            lines.append(f'<li class="part">{html.escape(part)}</li>')
            above = part
        number = "" if printed is None else f"<span>{printed.get(page, '')}</span>"
        lines.append(
            f'<li{" class=run" if own else ""}><a href="#{_key(page)}">{html.escape(titles[page])}{number}</a></li>'
        )
    return '<nav class="contents">\n<h1>Contents</h1>\n<ul>\n' + "\n".join(lines) + "\n</ul>\n</nav>"


# ------------------------------------------------------------------------------------------- the PDF


def browser() -> str:
    """The program that prints: ``$BROWSER_PATH``, or the first Chrome, Chromium or Edge in the usual places.

    ValueError with what to do where there is none.
    """
    if named := os.environ.get("BROWSER_PATH"):
        if found := shutil.which(named):
            return found
        raise ValueError(f"BROWSER_PATH={named}: there is no such program.\n{ADVICE}")
    names = "google-chrome google-chrome-stable chromium chromium-browser microsoft-edge chrome msedge"
    for found in filter(None, map(shutil.which, names.split())):
        return found
    for folder, pattern in _places():
        for found in sorted(folder.glob(pattern), reverse=True):  # the newest of playwright's
            return str(found)
    raise ValueError(f"no browser to print the PDF was found.\n{ADVICE}")


def _places() -> Iterator[tuple[Path, str]]:
    """Folders and what to look for in them: macOS, Windows, then playwright's own browsers."""
    for folder in (Path("/Applications"), Path.home() / "Applications"):
        for name in ("Google Chrome", "Chromium", "Microsoft Edge"):
            yield folder, f"{name}.app/Contents/MacOS/{name}"
    for name in ("PROGRAMFILES", "PROGRAMFILES(X86)", "LOCALAPPDATA"):
        for program in ("Google/Chrome/Application/chrome.exe", "Microsoft/Edge/Application/msedge.exe"):
            yield Path(os.environ.get(name) or "/nowhere"), program
    caches = [
        os.environ.get("PLAYWRIGHT_BROWSERS_PATH"),
        os.environ.get("XDG_CACHE_HOME") and Path(os.environ["XDG_CACHE_HOME"], "ms-playwright"),
        Path.home() / ".cache" / "ms-playwright",
        Path.home() / "Library" / "Caches" / "ms-playwright",
        Path(os.environ.get("LOCALAPPDATA") or "/nowhere", "ms-playwright"),
    ]
    for cache in filter(None, caches):
        yield Path(cache), "chromium-*/chrome-linux*/chrome"
        yield Path(cache), "chromium-*/chrome-mac*/*.app/Contents/MacOS/*"
        yield Path(cache), "chromium-*/chrome-win*/chrome.exe"


def printed(program: str, page: str, work: Path) -> Path:
    """`page`, HTML, as a PDF in the folder `work`, printed by the browser `program`; ValueError with what it said."""
    source, pdf = work / "page.html", work / "page.pdf"
    source.write_text(page, encoding="utf-8")
    pdf.unlink(missing_ok=True)
    command = [
        program,
        "--headless",
        f"--user-data-dir={work / 'browser'}",  # its own: the user's may be open
        "--no-first-run",
        "--no-default-browser-check",
        "--disable-gpu",
        "--disable-extensions",
        "--disable-background-networking",
        "--disable-dev-shm-usage",  # of 64 MB in containers
        "--host-resolver-rules=MAP * ~NOTFOUND",  # whatever it wants of the network, it gets nothing
        "--generate-pdf-document-outline",
        "--no-pdf-header-footer",
        f"--print-to-pdf={pdf}",
        source.as_uri(),
    ]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.insert(1, "--no-sandbox")  # Chrome refuses to run as root otherwise: containers, Colab
    try:
        said = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=600)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ValueError(f"{program} printed nothing: {error}\n{ADVICE}") from None
    if said.returncode or not pdf.is_file():
        last = "\n  ".join(said.stderr.strip().splitlines()[-8:])
        raise ValueError(f"{program} printed nothing (exit {said.returncode}):\n  {last}\n{ADVICE}")
    return pdf


def numbers(reader: pypdf.PdfReader, pages: dict) -> dict[str, int]:
    """The page of the PDF, from 1, on which each page of the book begins."""
    at = reader.named_destinations
    return {page: reader.get_destination_page_number(at[f"/{_key(page)}"]) + 1 for page in pages}


def pdf(profile: Profile, who: Student, day: date, show_faces: bool, work: Path) -> bytes:
    """The report as a PDF: printed once to learn the page numbers, then with them in its contents."""
    program, pages, known = browser(), _pages(profile), {}
    for _ in range(2):
        file = printed(program, document(profile, who, day, show_faces, known), work)
        reader = pypdf.PdfReader(file)
        before, known = known, numbers(reader, pages)
    if before != known:
        raise ValueError("the page numbers in the contents moved the pages: shorten the contents (book/_toc.yml)")
    if f"2 / {len(reader.pages)}" not in reader.pages[1].extract_text():
        raise ValueError(f"{program} puts no page numbers onto pages: it is too old.\n{ADVICE}")
    if "\0" in reader.pages[0].extract_text():  # a box was printed in a letter's place
        raise ValueError(
            f"no font on this machine has all letters of {who.name}, {who.id}, {who.course}: install one that has (on "
            "Linux fonts-noto, and fonts-noto-cjk for Chinese, Japanese and Korean), or do without the PDF (PDF=false)"
        )
    writer = pypdf.PdfWriter(file, incremental=True)  # the browser's bytes stay as they are
    made_by = f"agegender {agegender.__version__}"
    writer.add_metadata({"/Author": who.name, "/Subject": f"{who.course}; ID {who.id}", "/Creator": made_by})
    writer.page_mode = "/UseOutlines"
    whole = io.BytesIO()
    writer.write(whole)
    return whole.getvalue()


# ------------------------------------------------------------------------------------------- the zip


def make(profile: Profile, who: Student, show_faces: bool = True, with_pdf: bool = True) -> Path:
    """Write ``_build/PROFILE/hand-in/NAME-ID.zip`` from the report that was made; ValueError where it can't be."""
    report.check(profile)
    if report.edition(profile, show_faces) != report.built_edition(profile):
        raise ValueError(
            f"the report of profile {profile.name} was not made from these runs and this book with show_faces="
            f"{str(show_faces).lower()}: make it first (make hand-in does; or snakemake, see book/rerun.md)"
        )
    folder, day = home() / "_build" / profile.name / "hand-in", date.today()
    files = {
        "README.md": _readme(profile, who, day, show_faces, with_pdf),
        "report.html": document(profile, who, day, show_faces),
        f"{profile.name}.yml": _as_run(profile),
    }
    if with_pdf:
        work = folder / "work"  # no hidden folder: a browser from a snap may not read those
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        try:
            files["report.pdf"] = pdf(profile, who, day, show_faces, work)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    for page, run in report.pages(profile).items():
        files[f"{page}.ipynb"] = _notebook(profile, page)
        record = _without_folders(provenance.read(run.folder), run)
        files[f"provenance/{run.name}.json"] = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
    path = folder / f"{who.file}.zip"
    with written_whole(path) as part, zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(f"{who.file}/{name}", time.localtime()[:6])
            entry.external_attr = 0o644 << 16  # whoever marks it may read it
            archive.writestr(entry, content, zipfile.ZIP_DEFLATED)
    return path


def _notebook(profile: Profile, page: str) -> str:
    """A staged notebook, with its links and its warning for whoever opens it in Jupyter and not in the book."""
    site = home() / "_build" / profile.name / "site"
    notebook = nbformat.read(site / f"{page}.ipynb", as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            text = re.sub(r"```\{admonition\} (.*)\n(?::.*\n)*(.*)\n```", r"> **\1.** \2", cell.source)
            link = r"\]\(\.\./(book/\w+)\.md(?:#[^)]*)?\)"
            cell.source = re.sub(link, lambda m: f"](../report.html#{_key(m[1])})", text)
    return nbformat.writes(notebook) + "\n"


def _without_folders(value: Any, run: profiles.Run) -> Any:
    """`value` of a record without this machine's folders in its texts."""
    if isinstance(value, dict):
        return {key: _without_folders(item, run) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_folders(item, run) for item in value]
    return report.private(value, run) if isinstance(value, str) else value


def _as_run(profile: Profile) -> str:
    """The profile with every parameter of every run, as YAML that is a profile itself."""
    runs = {}
    for name, run in profile.runs.items():
        given = {key: value for key, value in run.parameters.items() if key != "out"}
        at = {profile.runs[need].folder.as_posix(): need for need in run.needs}
        given |= {key: [at.get(item, item) for item in given[key]] for key in ("runs",) if key in given}
        given |= {key: at.get(given[key], given[key]) for key in ("recipe", "model") if key in given}
        runs[name] = {"notebook": run.notebook.stem, **_without_folders(given, run)}
    whole = {"title": profile.title, "description": profile.description, "runs": runs}
    return yaml.safe_dump(whole, sort_keys=False, allow_unicode=True, width=110)


def _readme(profile: Profile, who: Student, day: date, show_faces: bool, with_pdf: bool) -> str:
    own = any(run.parameters.get("data", "sample") != "sample" for run in profile.runs.values())
    words = ["make report", f"PROFILE={profile.name}", *(["DATA=FOLDER"] if own else [])]
    words += [] if show_faces else ["SHOW_FACES=false"]
    return "\n".join([
        f"# {who.name}, {who.id}: {who.course}",
        "",
        f"Handed in on {day.day} {day:%B %Y}. Faces: {_faces(profile)}.",
        "",
        *(["- `report.pdf`: the report, to read"] if with_pdf else []),
        "- `report.html`: the same in one file, which fetches nothing" + (", to read" if not with_pdf else ""),
        "- `notebooks/`: as they were run, with their results",
        f"- `{profile.name}.yml`: every parameter of every run",
        "- `provenance/`: what each run was made from and with: code, data, versions, device, time",
        "",
        f"To repeat it, with Python 3.11 to 3.13 and make, in the folder of the code ({_commit(provenance.git())}):",
        "",
        "```",
        " ".join(words),
        "make test",
        "```",
        "",
        *(["`FOLDER` is where those faces lie: they are not part of the code.", ""] if own else []),
        f"`PROFILE=path/to/{profile.name}.yml` takes the parameters from this folder.",
        "",
    ])  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m agegender.handin", description=__doc__.partition(":")[0])
    for field in fields(Student):
        parser.add_argument(f"--{field.name}", default="", help=f"{field.name} on the title page")
    parser.add_argument("--profile", default="sample", help="whose report")
    parser.add_argument("--data", default="", help="the faces the report was made from, if it was told")
    parser.add_argument("--show-faces", default="true", help="false: no picture of a face (as the report was made)")
    parser.add_argument("--pdf", default="true", help="false: no PDF, where no browser can print it")
    parser.add_argument("--check", action="store_true", help="only see whether all is there to hand in with")
    given = parser.parse_args(arguments)
    try:
        who = student(given.name, given.id, given.course)
        show_faces = profiles.switch("show_faces", given.show_faces)
        with_pdf = profiles.switch("pdf", given.pdf)
        if with_pdf:
            browser()
        if given.check:
            return 0
        profile = profiles.read(given.profile, {"data": given.data} if given.data else {})
        path = make(profile, who, show_faces, with_pdf)
    except ValueError as error:
        print(f"hand-in: {error}", file=sys.stderr)
        return 1
    if provenance.git()["changed"]:
        print("Files here differ from the commit that is named in it: commit them first if others are to repeat this.")
    print(f"To hand in ({path.stat().st_size / 1e6:.0f} MB): {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
