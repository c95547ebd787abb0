"""The book: check the runs of a profile, stage their notebooks as pages, build, and say how long it all took.

Called by the Snakefile: ``python -m agegender.report PROFILE OPTIONS``, options as base64 of JSON.
"""

from __future__ import annotations

import base64
import csv
import json
import posixpath
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Iterator

import nbformat
import yaml

from agegender import profiles, provenance
from agegender.places import home
from agegender.profiles import Profile, Run

LEFT_OUT = "Pictures of faces are left out of this edition."
DRAWN = (
    "```{admonition} Drawn faces\n:class: warning\nThese faces are drawn by a program "
    "and belong to nobody: the numbers here describe no people.\n```\n"
)
DRAWN_HERE = "<!-- drawn -->"  # where a page that is of other faces as well has its warning
PREFIX = "application/papermill.record/"  # a value stored for other pages, not shown
NOT_FINITE = re.compile(r"(?<![\w.])(?:nan|[-+]?inf)(?!\w)")
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)\s#]+\.ipynb)(?:#[^)]*)?\)")
GLUED = re.compile(r"\{glue:\w*\}`([^`:]+)::([^`:]+)(?::[^`]*)?`")


# ---------------------------------------------------------------------------------------------- the gate


def check(profile: Profile) -> None:
    """Raise ValueError with every reason why the runs of `profile` can't go into a book."""
    faults = [f"{run.name}: {fault}" for run in profile.runs.values() for fault in _faults(profile, run)]
    if faults:
        raise ValueError(
            f"profile {profile.name}: the book is not built, for\n"
            + "\n".join(f"  - {fault}" for fault in faults)
        )


def _faults(profile: Profile, run: Run) -> Iterator[str]:
    path = home() / run.folder / "notebook.ipynb"
    if not path.is_file():
        yield f"it has not run: there is no {run.folder.as_posix()}/notebook.ipynb"
        return
    notebook = nbformat.read(path, as_version=4)
    if "papermill" in notebook.metadata and notebook.metadata.papermill.get("exception"):
        yield "papermill says that it failed"
    for number, cell in enumerate(notebook.cells, 1):
        if cell.cell_type != "code":
            continue
        if cell.source.strip() and cell.execution_count is None:
            yield f"cell {number} was not executed"
        for output in cell.outputs:
            if output.output_type == "error":
                yield f"cell {number} failed: {output.ename}: {output.evalue}"
        yield from (f"cell {number} {fault}" for fault in _picture_faults(cell))
    for key, value in glued(notebook).items():
        if NOT_FINITE.search(value):
            yield f"the glued {key} is {value}: a number that is not finite"
    yield from _stale(profile, run, notebook)


def _picture_faults(cell: nbformat.NotebookNode) -> Iterator[str]:
    shown = 0
    for output, mime in _pictures(cell):
        if mime.startswith(PREFIX):
            yield "glues a picture: only text and numbers go across pages"
            continue
        shown += 1
        said = output.metadata.get(mime, {})
        if not str(said.get("alt") or "").strip():
            yield f"shows a picture ({mime}) without alt text: use figures.show(figure, alt)"
        if not isinstance(said.get("faces"), bool):
            yield f"shows a picture ({mime}) without saying whether faces are on it: use figures.show"
    if shown > 1:
        yield f"shows {shown} pictures: one to a cell, or their alt texts are lost"
    for output in cell.outputs:
        for mime in ("text/html", "text/markdown", "text/latex"):
            text = "".join(output.get("data", {}).get(mime, ""))
            if re.search(r"<(?:img|svg|canvas|video|iframe)\b|data:image/|!\[[^]]*\]\(", text, re.I):
                yield f"hides a picture in {mime}: use figures.show, for its alt text and so that it can go"


def _pictures(cell: nbformat.NotebookNode) -> Iterator[tuple[nbformat.NotebookNode, str]]:
    for output in cell.get("outputs", []):
        for mime in output.get("data", {}):
            if mime.removeprefix(PREFIX).startswith(("image/", "video/")):
                yield output, mime


def _stale(profile: Profile, run: Run, notebook: nbformat.NotebookNode) -> Iterator[str]:
    """Where a run's record disagrees with what would run now."""
    try:
        record = provenance.read(run.folder)
    except ValueError as error:
        yield str(error)
        return
    now = provenance.code_digest(run.source)
    if record["notebook_sha256"] != now or provenance.code_digest(notebook) != now:
        yield f"it is stale: the code of {run.notebook.as_posix()} has changed since it ran"
    modules, then = provenance.source_digests(profiles.sources(run.source)), record["sources"]
    if changed := sorted(name for name in modules | then if modules.get(name) != then.get(name)):
        yield f"it is stale: changed since it ran: {', '.join(changed)}"
    want, had = provenance.plain(run.parameters), record["parameters"]
    for key in sorted(want | had):
        if want.get(key) != had.get(key):
            yield f"it is stale: it ran with {key} = {had.get(key)!r}, the profile says {want.get(key)!r}"
    for name, digest in record["files"].items():
        file = home() / run.folder / name
        if not file.is_file():
            yield f"{name} is gone"
        elif provenance.file_digest(file) != digest:
            yield f"{name} has changed since the run wrote it"
    try:
        provenance.plain(record)
    except ValueError as error:
        yield f"its record: {error}"
    if not isinstance(data(profile, run).get("drawn"), bool):
        yield 'its record does not say whether its faces are drawn: finish(data={"title": ..., "drawn": ...})'


def data(profile: Profile, run: Run) -> dict[str, Any]:
    """What a run's record says of its faces; if it read none, the records of the runs it compares."""
    for name in (run.name, *run.needs):
        try:
            if told := provenance.read(profile.runs[name].folder)["facts"].get("data"):
                return told
        except ValueError:
            continue
    return {}


def glued(notebook: nbformat.NotebookNode) -> dict[str, str]:
    """The values a notebook stores for other pages, by key, as text."""
    found = {}
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if name := output.get("metadata", {}).get("scrapbook", {}).get("name"):
                texts = [value for mime, value in output.data.items() if mime.endswith("text/plain")]
                found[name] = "".join(texts[0]) if texts else ""
    return found


# ---------------------------------------------------------------------------------------------- staging


def stage(profile: Profile, site: Path, show_faces: bool = True) -> None:
    """Lay out the book's sources in the new folder `site` under the repository's own paths.

    Only these copies are changed: parameters cells hidden, stderr dropped, alt texts put where MyST-NB reads
    them, this machine's folders cut out, a warning on drawn faces added, and with `show_faces` False every
    picture of faces replaced by a sentence.
    """
    from agegender import cards, reference  # with pandas and more, which nothing else here needs

    shutil.rmtree(site, ignore_errors=True)
    shutil.copytree(home() / "book", site / "book", ignore=shutil.ignore_patterns("reference"))
    config = yaml.safe_load((home() / "_config.yml").read_text(encoding="utf-8"))
    written = yaml.safe_dump(_at_home(config, provenance.web_address()), sort_keys=False)
    (site / "_config.yml").write_text(written, encoding="utf-8")
    (site / "notebooks").mkdir()
    at = pages(profile)
    stored = {}
    for page, run in at.items():
        notebook = nbformat.read(home() / run.folder / "notebook.ipynb", as_version=4)
        stored[page] = glued(notebook)
        _clean(notebook, run, show_faces)
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                cell.source = _linked(cell.source, "notebooks", at)
        if data(profile, run).get("drawn"):
            _under_title(notebook.cells)
        nbformat.write(notebook, site / f"{page}.ipynb")
    toc = _toc(yaml.safe_load((home() / "book" / "_toc.yml").read_text(encoding="utf-8")), at)
    (site / "_toc.yml").write_text(yaml.safe_dump(toc, sort_keys=False), encoding="utf-8")

    status = site / "book" / "status.md"
    status.write_text(
        status.read_text(encoding="utf-8") + "\n" + _status(profile, show_faces), encoding="utf-8"
    )
    drawn = any(data(profile, run).get("drawn") for run in profile.runs.values())
    edition = _edition(profile)
    for page in sorted((site / "book").rglob("*.md")):
        text = page.read_text(encoding="utf-8")
        computed = "{glue:" in text or "<!-- card: " in text
        text = reference.filled(cards.filled(text, edition), page.parent)
        for run in profile.runs.values():
            text = private(text, run)
        for target, key in GLUED.findall(text):
            name = (page.parent / target).resolve().relative_to(site.resolve()).with_suffix("").as_posix()
            if key not in stored.get(name, {}):
                why = "does not glue it" if name in stored else f"is not in profile {profile.name}"
                raise ValueError(f"book/{page.name} takes {key} from {name}.ipynb, which {why}")
        text = _linked(text, page.parent.relative_to(site).as_posix(), at)
        if DRAWN_HERE in text:  # a page on other faces as well
            text = text.replace(DRAWN_HERE, DRAWN if drawn else "")
        elif drawn and (computed or page.name == "status.md"):
            text = _titled(text)
        page.write_text(text, encoding="utf-8")


def _edition(profile: Profile):
    """The runs as the cards take them (``cards.Edition``)."""
    from agegender import cards

    folders = {name: run.folder for name, run in profile.runs.items()}
    return cards.Edition({
        name: cards.Ran(home() / folder, provenance.read(folder)) for name, folder in folders.items()
    })


def _at_home(config: dict[str, Any], url: str | None) -> dict[str, Any]:
    """`config` with the repository's address, or without any link that would need one."""
    if url:
        return config | {"repository": config["repository"] | {"url": url}}
    html = {key: value for key, value in config["html"].items() if not key.endswith("_button")}
    return {key: value for key, value in config.items() if key not in ("repository", "launch_buttons")} | {
        "html": html
    }


def pages(profile: Profile) -> dict[str, Run]:
    """Each run's page. A notebook's own page is the run that bears its name, else its first run."""
    found, first = {}, {}
    for run in profile.runs.values():
        stem = run.notebook.stem
        first.setdefault(stem, profile.runs.get(stem, run))
        found["notebooks/" + (stem if first[stem] is run else run.name)] = run
    return found


def _clean(notebook: nbformat.NotebookNode, run: Run, show_faces: bool) -> None:
    notebook.metadata.pop("papermill", None)
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        cell.metadata.pop("papermill", None)
        cell.source = private(cell.source, run)
        if cell.cell_type != "code":
            continue
        tags = cell.metadata.get("tags", [])
        for tag, hide in (("parameters", "remove-cell"), ("injected-parameters", "hide-input")):
            if tag in tags:
                cell.metadata["tags"] = [*tags, hide]
                cell.metadata.setdefault("mystnb", {})["code_prompt_show"] = "The parameters of this run"
        cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
        for output in cell.outputs:
            if "text" in output:
                output.text = private(output.text, run)
            for mime in [mime for mime in output.get("data", {}) if "text/" in mime]:
                output.data[mime] = private(output.data[mime], run)
        for output, mime in list(_pictures(cell)):
            said = output.metadata.get(mime, {})
            if show_faces or said.get("faces") is False:
                image = {"alt": said["alt"]} | ({"width": said["width"]} if said.get("width") else {})
                cell.metadata.setdefault("mystnb", {})["image"] = image
            else:
                output.data, output.metadata = {"text/plain": LEFT_OUT}, {}


def private(text: str, run: Run) -> str:
    """`text` without this machine's folders."""
    faces = str(run.parameters.get("data", ""))
    folders = [(str(home()), "."), (str(Path.home()), "~")]
    if Path(faces).is_absolute():
        folders.insert(0, (str(Path(faces).parent), "..."))
    for folder, short in folders:
        if len(folder) > 1:
            text = re.sub(re.escape(folder) + r"(?![\w.-])", short, text)
    return text


def _linked(text: str, folder: str, at: dict[str, Run]) -> str:
    """`text`, of a page in `folder`, with links to notebooks that are not run here made plain words."""

    def link(found: re.Match[str]) -> str:
        page = posixpath.normpath(posixpath.join(folder, found[2])).removesuffix(".ipynb")
        return found[1] if page not in at and (home() / f"{page}.ipynb").is_file() else found[0]

    return LINK.sub(link, text)


def _under_title(cells: list[nbformat.NotebookNode]) -> None:
    for cell in cells:
        if cell.cell_type == "markdown" and re.search(r"^# ", cell.source, re.M):
            cell.source = _titled(cell.source)
            return
    raise ValueError("a notebook has no title (# ...) in its first cell")


def _titled(text: str) -> str:
    """`text` with the warning on drawn faces under its first title."""
    return re.sub(r"^(# .*)$", lambda title: f"{title[1]}\n\n{DRAWN}", text, count=1, flags=re.M)


def _toc(toc: dict[str, Any], at: dict[str, Run]) -> dict[str, Any]:
    """The table of contents with the pages there are: runs beside a notebook's own become its sections."""
    entries = [entry for part in toc["parts"] for entry in part["chapters"]]
    listed = {entry["file"] for entry in entries}
    for page, run in at.items():
        own = run.notebook.with_suffix("").as_posix()
        if own not in listed:
            raise ValueError(f"{run.notebook.as_posix()} is missing in book/_toc.yml")
        if page != own:
            [entry] = [entry for entry in entries if entry["file"] == own]
            entry.setdefault("sections", []).append({"file": page, "title": run.name})
    for part in toc["parts"]:
        part["chapters"] = [
            entry
            for entry in part["chapters"]
            if not entry["file"].startswith("notebooks/") or entry["file"] in at
        ]
    return toc | {"parts": [part for part in toc["parts"] if part["chapters"]]}


def _status(profile: Profile, show_faces: bool) -> str:
    """What was run, as Markdown."""
    records = {name: provenance.read(run.folder) for name, run in profile.runs.items()}
    code = provenance.git()
    commit = (
        "unknown (no git here)"
        if code["commit"] is None
        else (
            f"`{code['commit'][:12]}`" + (", with uncommitted changes" if code["changed"] else ", unchanged")
        )
    )
    lines = [
        f"Profile **{profile.name}**: {profile.title}. {profile.description}".strip(),
        "",
        "| | |",
        "| --- | --- |",
        f"| code when the book was built | {commit} |",
        f"| built | {time.strftime('%Y-%m-%d %H:%M', time.gmtime())} UTC |",
        f"| pictures of faces | {'shown' if show_faces else 'left out'} |",
        "",
        "## Times and memory",
        "",
        "| run | finished (UTC) | seconds | most memory, MB | device | weights |",
        "| --- | --- | ---: | ---: | --- | --- |",
    ]
    for name, record in records.items():
        cost = _benchmark(profile.runs[name])
        lines.append(
            "| "
            + " | ".join(
                [
                    name,
                    record["finished"][:16].replace("T", " "),
                    f"{cost.get('s', record['seconds']):.0f}",
                    f"{cost.get('max_rss', record['peak_memory_mb']):.0f}",
                    _cell(", ".join(record["devices"])),
                    _cell(record["facts"].get("weights", "")),
                ]
            )
            + " |"
        )
    for name, record in records.items():
        run = profile.runs[name]
        then = record["code"]["commit"]
        rows = {
            "notebook": f"{record['notebook']}.ipynb",
            "code": "unknown"
            if then is None
            else then[:12] + (" (changed)" if record["code"]["changed"] else ""),
            "platform": record["platform"],
        }
        rows |= {key: value for key, value in _flat(record["facts"])}
        for title, table in (
            ("parameter", record["parameters"]),
            ("what was run", rows),
            ("version", record["versions"]),
        ):
            heading = [f"## {name}", ""] if title == "parameter" else []
            lines += ["", *heading, f"| {title} | value |", "| --- | --- |"]
            lines += [f"| {key} | {_cell(private(_text(value), run))} |" for key, value in table.items()]
    return "\n".join(lines) + "\n"


def _flat(facts: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in facts.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{above}{key}: ")
        else:
            yield above + key, value


def _text(value: Any) -> str:
    return (
        f"{value:.6g}"
        if isinstance(value, float)
        else (", ".join(map(str, value)) if isinstance(value, list) else str(value))
    )


def _cell(value: Any) -> str:
    """`value` as the literal text of one cell of a Markdown table."""
    text = " ".join(str(value).split()).replace("|", "\\|").replace("`", "'")
    return f"`{text}`" if text else ""


# ------------------------------------------------------------------------------------------ build and times


def build(profile: Profile, show_faces: bool = True) -> Path:
    """Check, stage and build; the path of the first page. ValueError with what the builder complained of."""
    top = home() / "_build" / profile.name
    html, made_from = top / "html", top / "edition.json"
    # A failed build must not leave an older edition, perhaps one with faces, standing as this one.
    shutil.rmtree(html, ignore_errors=True)
    made_from.unlink(missing_ok=True)
    check(profile)
    now = edition(profile, show_faces)
    site, work = top / "site", top / "work"
    stage(profile, site, show_faces)
    shutil.rmtree(work, ignore_errors=True)
    log = top / "build.log"
    command = [
        sys.executable,
        "-c",
        "from jupyter_book.cli.main import main; main()",
        "build",
        str(site),
        "--toc",
        str(site / "_toc.yml"),
        "--config",
        str(site / "_config.yml"),  # both have to be absolute
        "--path-output",
        str(work),
        "-n",
        "-W",
        "--keep-going",
        "--all",
    ]
    with open(log, "w", encoding="utf-8") as file:
        code = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, cwd=site).returncode
    if code:
        text = re.sub(r"\x1b\[[\d;]*m", "", log.read_text(encoding="utf-8", errors="replace"))
        told = [line for line in text.splitlines() if re.search(r"WARNING|ERROR|Error|Exception", line)]
        raise ValueError(
            f"jupyter-book did not build the pages (all it said: {log.relative_to(home())}):\n  "
            + "\n  ".join(told or text.splitlines()[-20:])
        )
    (work / "_build" / "html").rename(html)
    shutil.rmtree(work, ignore_errors=True)
    _mend(html, pages(profile))
    made_from.write_text(json.dumps(now), encoding="utf-8")
    return html / "index.html"


def edition(profile: Profile, show_faces: bool) -> dict[str, Any]:
    """What the pages of `profile` are made from, as digests, to tell whether pages there are of today's."""
    sources = [home() / "_config.yml", *sorted(path for path in (home() / "book").rglob("*") if path.is_file())]
    runs = [home() / run.folder / name for run in profile.runs.values() for name in ("notebook.ipynb", provenance.FILE)]
    return {
        "show_faces": show_faces,
        "files": {path.relative_to(home()).as_posix(): provenance.file_digest(path) for path in sources + runs},
    }


def built_edition(profile: Profile) -> dict[str, Any] | None:
    """The `edition` that the built pages of `profile` are; None where none are built."""
    path = home() / "_build" / profile.name / "edition.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _mend(html: Path, at: dict[str, Run]) -> None:
    """Put right in the built pages what the builder has no setting for."""
    for path in html.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        # in the side bar: a name for the arrow that unfolds a chapter's further pages
        text = re.sub('<summary>(?=<span class="toctree-toggle")', '<summary aria-label="Further pages">', text)
        # in the references: what a list consists of is items
        text = text.replace('role="doc-biblioentry"', 'role="listitem"')
        page = path.relative_to(html).with_suffix("").as_posix()
        if page in at:  # a further run of a notebook is edited, and opened elsewhere, in that notebook
            own = at[page].notebook.as_posix()
            text = re.sub(rf"(?<!_sources)/{re.escape(page)}\.ipynb", f"/{own}", text)
        path.write_text(text, encoding="utf-8")


def times(profile: Profile) -> str:
    """The stages and how long each took when it last ran, as a table for the screen."""
    rows = []
    setup = home() / ".venv" / "setup-seconds"
    if setup.is_file():
        rows.append(("set-up of .venv", float(setup.read_text()), None))
    for run in profile.runs.values():
        cost = _benchmark(run)
        rows.append((run.name, cost.get("s", 0.0), cost.get("max_rss")))
    book = home() / "_build" / profile.name / "seconds"
    if book.is_file():
        rows.append(("check and book", float(book.read_text()), None))
    width = max(len(name) for name, *_ in rows)
    lines = [f"{'stage':{width}}  {'seconds':>8}  {'most memory':>11}"]
    lines += [
        f"{name:{width}}  {seconds:8.0f}  {f'{memory:.0f} MB' if memory else '':>11}"
        for name, seconds, memory in rows
    ]
    lines.append(f"{'in all, one after the other':{width}}  {sum(row[1] for row in rows):8.0f}")
    return "\n" + "\n".join(lines)


def _benchmark(run: Run) -> dict[str, float]:
    """Snakemake's measurements of a run: s (seconds), max_rss (MB), as far as there are any."""
    path = home() / run.folder / "benchmark.tsv"
    if not path.is_file():
        return {}
    [row] = list(csv.DictReader(path.read_text().splitlines(), delimiter="\t"))[-1:]
    return {key: float(row[key]) for key in ("s", "max_rss") if re.fullmatch(r"[\d.]+", row.get(key) or "")}


def main(path: str, encoded: str) -> int:
    """Build the book of a profile as the Snakefile asks; the exit code."""
    asked, began = json.loads(base64.b64decode(encoded)), time.perf_counter()
    print("book: checking the runs and building the pages", flush=True)
    try:
        profile = profiles.read(path, asked["overrides"])
        build(profile, asked["show_faces"])
    except ValueError as error:
        print(f"\n{error}\n", file=sys.stderr)
        return 1
    (home() / "_build" / profile.name / "seconds").write_text(f"{time.perf_counter() - began:.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
