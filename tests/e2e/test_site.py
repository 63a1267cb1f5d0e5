"""The documentation site: built without warnings, complete, and needing nothing from elsewhere."""

import os
import re
import subprocess
import sys
from html import unescape
from pathlib import Path

import pytest
import typer

import l1bsr_geo
from l1bsr_geo.cli.main import app
from tests.e2e.pages import ROOT


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """As `make docs` builds it."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder],
        capture_output=True, text=True, check=False, cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return folder


def test_every_file_is_a_page(site):
    """Those of docs/, the notebooks, and the project's own."""
    expected = {path.stem for path in ROOT.glob("docs/*.md")}
    expected |= {f"notebooks/{path.stem}" for path in ROOT.glob("notebooks/*.ipynb")}
    expected |= {"index", "architecture", "changelog", "contributing", "cli"}
    built = {str(p.relative_to(site).with_suffix("")) for p in site.rglob("*.html")} - {"404"}
    assert built == expected
    front = (site / "index.html").read_text()
    for name in expected:
        assert f'href="{name}.html"' in front, name  # one click away


def test_commands_are_complete(site):
    page = unescape(re.sub("<[^>]+>", "", (site / "cli.html").read_text()))
    found = 0
    for words, command in leaves(typer.main.get_command(app), ["l1bsr-geo"]):
        section = page[page.index(f"{' '.join(words)}¶") :].split("¶")[1]
        for parameter in command.params:
            option = parameter.param_type_name == "option"
            for name in parameter.opts if option else [parameter.metavar or parameter.name]:
                assert name in section, (words, name)
                found += 1
    assert found > 100


def leaves(command, words):
    below = getattr(command, "commands", {})
    if not below:
        yield words, command
    for name, child in below.items():
        yield from leaves(child, [*words, name])


def test_public_names_are_told(site):
    page = (site / "api.html").read_text()
    for name in set(l1bsr_geo.__all__) - {"__version__"}:
        assert re.search(rf'id="l1bsr_geo\.([\w.]+\.)?{name}"', page), name


def test_nothing_comes_from_elsewhere(site):
    """No font, script, style or picture of another server."""
    for path in site.rglob("*.html"):
        for tag in re.findall(r"<(?:script|link|img|iframe)\b[^>]*>", path.read_text()):
            if 'rel="canonical"' not in tag:
                assert not re.search(r'(?:src|href)="?(?:https?:)?//', tag), (path.name, tag)
    for path in site.rglob("*.css"):
        assert not re.search(r"url\([\"']?(?:https?:)?//", path.read_text()), path.name


def test_links_lead_somewhere(site):
    """The anchors of a page, too."""
    pages = {path: path.read_text() for path in site.rglob("*.html") if path.name != "404.html"}
    anchors = {path: set(re.findall(r'id="([^"]+)"', text)) for path, text in pages.items()}
    for path, text in pages.items():
        for target in re.findall(r'<a [^>]*href="([^"]+)"', text):
            place, _, anchor = unescape(target).partition("#")
            if ":" in place or target == ".":
                continue
            there = (path.parent / place).resolve() if place else path
            assert there.exists(), (path.name, target)
            if anchor and there in anchors:
                assert anchor in anchors[there] or anchor == "__codelineno", (path.name, target)
