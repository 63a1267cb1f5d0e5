"""The way of a newcomer: the quick start of the README, line after line, as it stands there."""

import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import rasterio
from rio_cogeo.cogeo import cog_validate

from l1bsr_geo.errors import L1bsrGeoWarning
from tests.e2e.pages import ROOT, Block, read_blocks

TEXT = (ROOT / "README.md").read_text()
LAST = TEXT[: TEXT.index("## Where to go")].count("\n")  # line of the quick start
BLOCKS = [block for block in read_blocks(ROOT / "README.md") if block.line < LAST]
INSTALLING = ("#", "python3 -m venv", "pip install")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Where the newcomer is, after the demonstration."""
    folder = tmp_path_factory.mktemp("newcomer")
    first, *_ = BLOCKS
    for line in commands(first):
        run(line, folder)
    return folder


def commands(block: Block) -> list[str]:
    assert block.kind == "sh"
    lines = re.sub(r" *\\\n *", " ", block.text).splitlines()
    return [line for line in lines if not line.startswith(INSTALLING)]


def run(line: str, folder: Path) -> str:
    """In a shell, with our commands at hand."""
    found = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        line, shell=True, cwd=folder, env={**os.environ, "PATH": found},
        capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, (line, done.stderr)
    assert "Traceback" not in done.stderr
    return done.stdout


@pytest.mark.slow
def test_demonstration(folder):
    result = folder / "demo/demo_5m.tif"
    valid, errors, remarks = cog_validate(result, strict=True)
    assert valid, (errors, remarks)
    with rasterio.open(result) as file:
        assert file.res == (5.0, 5.0)
        assert file.tags()["model"] == "l1bsr"
        assert file.dataset_mask().mean() > 150
    page = (folder / "demo/demo_report.html").read_text()
    assert "<html" in page
    assert not re.search(r'(?:src|href)="https?://', page)
    assert (folder / "demo/demo_before_after.png").stat().st_size > 10_000


@pytest.mark.slow
def test_rest_of_the_way(folder, monkeypatch):
    """Commands and Python in turn; every file that is named is there in the end."""
    monkeypatch.chdir(folder)
    for block in BLOCKS[1:]:
        if block.kind == "python":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", L1bsrGeoWarning)
                exec(compile(block.text, str(block), "exec"), {"__name__": "example"})
        else:
            for line in commands(block):
                assert run(line, folder)
    assert (folder / "out.html").stat().st_size > 10_000
    images = []
    for name in ("out.tif", "many.tif", "cut.tif"):
        with rasterio.open(folder / name) as file:
            assert file.crs.is_projected
            assert file.res == (5.0, 5.0)
            images.append(file.read())
    assert (images[0] == images[1]).all()  # many workers, the same pixels
    assert images[0].any()


def test_one_option_more_is_a_cluster():
    """What is said of many workers: the same command, and one option."""
    lines = [line for b in BLOCKS if b.kind == "sh" for line in commands(b)]
    one, many = (next(line for line in lines if name in line) for name in ("out.tif", "many.tif"))
    without = re.sub(r" --report \S+", "", one).replace("out.tif", "many.tif")
    assert many == f"{without} --workers 2"


def test_five_lines_of_python_are_enough():
    (block,) = [block for block in BLOCKS if block.kind == "python"]
    assert len([line for line in block.text.splitlines() if line.strip()]) <= 5
