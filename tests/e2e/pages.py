"""What the documentation shows: its pages, and the blocks of code on them."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob(".github/**/*.md")])
_BLOCK = re.compile(
    r"^(?:<!-- (?P<remark>[^\n]*) -->\n\n?)?```(?P<kind>\w+)\n(?P<text>.*?)^```",
    re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True)
class Block:
    """A fenced block of code.

    Attributes:
        page: path from the root of the repository.
        line: where it begins.
        kind: "sh", "python", "yaml" ...
        text: what is in it.
        remark: an HTML comment right before it, such as "not run: why".
    """

    page: str
    line: int
    kind: str
    text: str
    remark: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def find_blocks(kind: str) -> list[Block]:
    """All blocks of a kind, in order of pages."""
    return [block for page in PAGES for block in read_blocks(page) if block.kind == kind]


def read_blocks(page: Path) -> list[Block]:
    """All blocks of a page."""
    text = page.read_text()
    return [
        Block(
            str(page.relative_to(ROOT)),
            text[: match.start("kind")].count("\n") + 1,
            match["kind"],
            match["text"],
            match["remark"] or "",
        )
        for match in _BLOCK.finditer(text)
    ]


def without_code(text: str) -> str:
    """A page's prose."""
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
