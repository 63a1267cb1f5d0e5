"""What the documentation shows is true: commands, Python, links."""

import ast
import re
import shlex
import tomllib
import warnings
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import rasterio
import typer
from affine import Affine

from l1bsr_geo.cli import main as cli_main
from l1bsr_geo.errors import L1bsrGeoWarning
from l1bsr_geo.simulation.fine_scenes import made_city
from l1bsr_geo.simulation.scenes import MapScene
from l1bsr_geo.simulation.skysat_collect import write_skysat_collect
from tests.e2e.pages import PAGES, ROOT, find_blocks, without_code

PROGRAM = typer.main.get_command(cli_main.app)
OTHERS = {"cd", "git", "export", ".", "dask", "unzip"}  # what they take is theirs


# --- commands ---


def test_every_command_is_one():
    """Of all pages, in full: names, options, the values they take, the arguments they need."""
    ours = 0
    for block in find_blocks("sh"):
        for line in block.text.replace("\\\n", " ").splitlines():
            for part in re.split(r" && | \| ", line):
                words = shlex.split(part, comments=True)
                while words and re.match(r"\w+=", words[0]):  # a variable before it
                    words = words[1:]
                if words:
                    ours += check_command(words, str(block))
    assert ours >= 40


def check_command(words: list[str], where: str) -> bool:
    """Whether it is ours; fails where it is not one that would begin its work."""
    name, *arguments = words
    if name == "rio":
        assert arguments.pop(0) == "l1bsr", (where, words)
    if name in ("l1bsr-geo", "rio"):
        parse(PROGRAM, [a for a in arguments if a != "-v"], where)
        return True
    if name == "make":
        targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert {a for a in arguments if "=" not in a} <= set(targets), (where, words)
    elif name == "pip":
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        for asked in re.findall(r"\[([\w,-]+)\]", " ".join(arguments)):
            assert set(asked.split(",")) <= set(extras["optional-dependencies"]), (where, words)
    elif name in ("python", "python3", "pytest"):
        files = [a for a in arguments if a.endswith(".py")]
        assert files or arguments[0] == "-m", (where, words)
        assert all((ROOT / file).is_file() for file in files), (where, words)
    else:
        assert name in OTHERS, (where, words)
    return False


def parse(command, arguments: list[str], where: str) -> None:
    """As the program does before it calls a function."""
    if hasattr(command, "commands"):
        if arguments == ["--version"]:
            return None
        assert arguments[0] in command.commands, (where, arguments)
        return parse(command.commands[arguments[0]], arguments[1:], where)
    try:
        command.make_context(command.name, list(arguments))
    except cli_main.USAGE_ERROR as error:
        pytest.fail(f"{where}: {command.name} {' '.join(arguments)}: {error.format_message()}")


def test_options_in_prose_exist():
    known = {name for command in leaves(PROGRAM) for p in command.params for name in p.opts}
    known |= {"--help", "--version", "--verbose", "--resources", "--gres"}  # click, dask, SLURM
    for page in PAGES:
        if page.name in ("CHANGELOG.md", "CONTRIBUTING.md", "benchmarks.md"):
            continue  # of other times and tools
        for code in re.findall(r"`((?:--|l1bsr-geo )[^`\n]+)`", without_code(page.read_text())):
            for option in re.findall(r"(?:^|\s)(--[a-z][a-z-]+)", code):
                assert option in known, (page.name, code)


def test_help_is_shown_whole():
    """Small letters in brackets are a style to what prints help, and are left out."""
    for command in leaves(PROGRAM):
        for text in (command.help, *(getattr(p, "help", None) for p in command.params)):
            assert not re.search(r"\[[a-z]", text or ""), (command.name, text)


@cache
def leaves(command) -> list:
    below = getattr(command, "commands", {})
    return [leaf for child in below.values() for leaf in leaves(child)] or [command]


def test_extras_are_told():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    page = (ROOT / "docs/install.md").read_text()
    told = re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)
    assert sorted(told) == sorted(extras["optional-dependencies"])


# --- Python ---


@pytest.fixture(scope="module")
def samples(demo, tmp_path_factory) -> Path:
    """Inputs under the names that the pages give them."""
    folder = tmp_path_factory.mktemp("samples")
    (folder / "PRODUCT.SAFE").symlink_to(demo.product)
    (folder / "dem.tif").symlink_to(demo.dem)
    shape = {"count": 4, "height": 40, "width": 50, "dtype": "uint16", "crs": "EPSG:32631"}
    place = Affine(10, 0, 7e5, 0, -10, 5e6)
    with rasterio.open(
        folder / "four_bands.tif", "w", driver="GTiff", transform=place, **shape
    ) as file:
        file.write(np.random.default_rng(0).integers(600, 900, (4, 40, 50), dtype=np.uint16))
        file.descriptions = ("B02", "B03", "B04", "B08")
    ground = Affine(0.5, 0, 500_000, 0, -0.5, 4_500_000)
    city = MapScene(made_city((600, 600), 5)[None], ground, "EPSG:32631", ("PAN",))
    write_skysat_collect(folder / "BURST", city, frames=5, shape=(96, 112))
    return folder


ELSEWHERE = ("README.md", "docs/clusters.md")  # test_readme, test_cluster_docs
RUN = [block for block in find_blocks("python") if block.page not in ELSEWHERE]


@pytest.mark.slow
@pytest.mark.parametrize("block", RUN, ids=str)
def test_python_runs(block, samples, tmp_path, monkeypatch):
    """Each by itself, as a user would, whose warnings are not errors."""
    monkeypatch.chdir(tmp_path)
    for path in samples.iterdir():
        (tmp_path / path.name).symlink_to(path)
    if block.remark.startswith("not run: "):
        assert len(block.remark) > 15
        check_imports(block.text)
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", L1bsrGeoWarning)
        warnings.filterwarnings("ignore", "Use `@` matmul", PendingDeprecationWarning)  # rioxarray
        exec(compile(block.text, str(block), "exec"), {"__name__": "example"})
    for path in {*tmp_path.glob("*.tif")} - {tmp_path / p.name for p in samples.iterdir()}:
        with rasterio.open(path) as written:
            assert written.dataset_mask().any(), path.name


def check_imports(source: str) -> None:
    """What is ours in it is there."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("l1bsr_geo"):
            exec(compile(ast.Module([node], []), "page", "exec"), {})


# --- links ---


def test_links_lead_somewhere():
    """In the repository, as it is read on a server of repositories; the site has its own test."""
    found = 0
    for page in PAGES:
        for target in re.findall(r"\]\(([^()\s]+)\)", without_code(page.read_text())):
            if target.startswith("https://"):
                continue
            path, _, anchor = target.partition("#")
            there = (page.parent / path).resolve() if path else page
            assert there.exists(), (page.name, target)
            assert there.is_relative_to(ROOT), (page.name, target)
            assert not anchor or anchor in anchors(there), (page.name, target)
            found += 1
    assert found > 20


def anchors(page: Path) -> set[str]:
    heads = re.findall(r"^#+ (.*)$", without_code(page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", head.lower()).strip().replace(" ", "-") for head in heads}


# --- commands that are run: what is at hand as sample, and done in a second or two ---

QUICK = {
    ("catalog", "list"), ("catalog", "add"), ("catalog", "to-stac"), ("models", "list"),
    ("models", "export"), ("info", "PRODUCT.SAFE"), ("sr", "four_bands.tif"), ("stac", "out.tif"),
    ("sr", "BURST"),
}  # fmt: skip
NEEDS_MORE = {"dem/", "net.yaml", "stack.npy", "--weights", "adapted.safetensors"}


def quick_commands() -> list[list[str]]:
    """Of the pages for people at the command line, in order, without those that need more."""
    chosen = []
    for block in find_blocks("sh"):
        if block.page in ("docs/commands.md", "docs/models.md", "docs/install.md"):
            for line in block.text.splitlines():
                words = shlex.split(line, comments=True)
                if words[:2] == ["rio", "l1bsr"]:
                    words = words[1:]
                if tuple(words[1:3]) in QUICK and not NEEDS_MORE & set(words):
                    chosen.append(words[1:])
    return chosen


@pytest.mark.slow
def test_quick_commands_run(samples, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("L1BSR_GEO_DATA", str(tmp_path / "data"))
    for path in samples.iterdir():
        (tmp_path / path.name).symlink_to(path)
    done = quick_commands()
    assert len(done) >= 10
    for words in done:
        replaces = any("--overwrite" in p.opts for p in find_command(words).params)
        code = call([*words, "--overwrite"] if replaces else words)
        assert code == 0, (words, capsys.readouterr().err)
    for name in ("out.tif", "out.json", "sigma.tif", "stac/catalog.json", "dncnn.onnx"):
        assert (tmp_path / name).exists(), name


def call(words: list[str]) -> int | str | None:
    """The exit code of a command."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            cli_main.main(words)
        except SystemExit as ended:
            return ended.code
    return 0


def find_command(words: list[str]):
    command = PROGRAM
    for word in words:
        if word in getattr(command, "commands", {}):
            command = command.commands[word]
    return command
