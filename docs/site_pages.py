"""What mkdocs cannot know: pages made of README, notebooks and commands, and links between them.

Files link to one another as they lie in the repository; here those links become links of the site.
"""

import json
import re
from collections.abc import Iterator
from html import escape
from pathlib import Path, PurePosixPath
from posixpath import normpath, relpath
from typing import Any

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
PROJECT_FILES = {
    "README.md": "index.md",
    "ARCHITECTURE.md": "architecture.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
}
LINK = re.compile(r"(?<!!)\[([^\]\n]*(?:\n[^\]\n]*)?)\]\(([^()\s]+)\)")
FENCED = re.compile(r"^(```.*?^```)", re.DOTALL | re.MULTILINE)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that no file of docs/ holds."""
    made = {page: (ROOT / name).read_text() for name, page in PROJECT_FILES.items()}
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        made[f"notebooks/{path.stem}.md"] = notebook_page(json.loads(path.read_text()))
    made["cli.md"] = command_page()
    for name, text in made.items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, files: Files, **_: Any) -> str:
    """Turn links of the repository into links of the site, outside of fenced code."""
    home = repository_path(page.file.src_uri)

    def turned(match: re.Match[str]) -> str:
        text, target = match.groups()
        path, _, anchor = target.partition("#")
        if not path or ":" in path:
            return match.group()
        place = normpath(PurePosixPath(home).parent / path)
        found = site_path(place)
        if files.get_file_from_path(found) is not None:
            link = relpath(found, PurePosixPath(page.file.src_uri).parent)
            return f"[{text}]({link}{'#' + anchor if anchor else ''})"
        # in the repository only, as a program or a folder is: its name is enough
        return text if (ROOT / place).exists() else match.group()

    parts = FENCED.split(markdown)
    return "".join(part if part.startswith("```") else LINK.sub(turned, part) for part in parts)


def site_path(place: str) -> str:
    """The page of a file of the repository."""
    if place in PROJECT_FILES:
        return PROJECT_FILES[place]
    if place.startswith("notebooks/"):
        return str(PurePosixPath(place).with_suffix(".md"))
    return place.removeprefix("docs/")


def repository_path(page: str) -> str:
    """The file of the repository that a page is of."""
    if page.startswith("notebooks/"):
        return page
    return {site: place for place, site in PROJECT_FILES.items()}.get(page, f"docs/{page}")


def notebook_page(notebook: dict[str, Any]) -> str:
    """A notebook's text and code."""
    cells = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        cells.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
    return "\n\n".join(cells)


def command_page() -> str:
    """All commands with all of their arguments and options, from the program itself."""
    from l1bsr_geo.cli.main import app

    parts = ["# Command line", "Every command says the same with `--help`."]
    for words, command in commands_of(typer.main.get_command(app), ("l1bsr-geo",)):
        context = command.context_class(command, info_name=" ".join(words))
        usage = command.get_usage(context).removeprefix("Usage: ")
        records = filter(None, (it.get_help_record(context) for it in command.params))
        rows = [f"| <code>{cell(names)}</code> | {cell(told)} |" for names, told in records]
        parts.append(f"## {' '.join(words)}")
        parts.append((command.help or "").strip())
        parts.append(f"```text\n{usage}\n```")
        parts.append("\n".join(["| name | meaning |", "|---|---|", *rows]) if rows else "")
    return "\n\n".join(part for part in parts if part)


def commands_of(command: Any, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The program and the commands that do something, groups left out."""
    below = getattr(command, "commands", {})
    if len(words) == 1 or not below:
        yield words, command
    for name, child in below.items():
        if not child.hidden:
            yield from commands_of(child, (*words, name))


def cell(text: str) -> str:
    """Plain text for a cell of a table."""
    return escape(" ".join(text.split())).replace("|", "&#124;")
