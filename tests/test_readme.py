"""The README and the book's pages lead only to what exists, and name commands that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[1]
PAGES = [TOP / "README.md", *sorted((TOP / "book").rglob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_commands_and_profiles_of_the_readme_exist():
    text = (TOP / "README.md").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", (TOP / "Makefile").read_text(), flags=re.M))
    named = set(re.findall(r"make (report|test|lab|[a-z]+)\b", text))
    assert {"report", "test", "lab"} <= named & targets
    profiles = {path.stem for path in (TOP / "notebooks" / "profiles").glob("*.yml")}
    assert set(re.findall(r"PROFILE=([\w-]+)", text)) - {"name"} <= profiles
    assert {name for name in re.findall(r"^\| `([\w-]+)` \|", text, flags=re.M)} == profiles
    assert not re.search(r"\b[A-Z]{5,}\b (?:minutes|seconds)|^TIMES$", text, flags=re.M)
