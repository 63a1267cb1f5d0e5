"""What the documentation shows is run: README, notebooks, catalog."""

import json
import re
import shlex
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import rasterio
import yaml
from affine import Affine

from l1bsr_geo.errors import L1bsrGeoWarning

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()


def run(source: str) -> None:
    """Execute code as a user would, whose warnings are not errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", L1bsrGeoWarning)
        exec(compile(source, "example", "exec"), {"__name__": "example"})


@pytest.mark.slow
def test_readme_python(demo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "PRODUCT.SAFE").symlink_to(demo.product)
    run(python_examples()[0])
    with rasterio.open("out.tif") as dataset:
        assert dataset.res == (5.0, 5.0)
        assert dataset.dataset_mask().any()


def test_readme_network_of_ones_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shape = {"count": 4, "height": 40, "width": 50, "dtype": "uint16", "crs": "EPSG:32631"}
    place = Affine(10, 0, 7e5, 0, -10, 5e6)
    with rasterio.open("four_bands.tif", "w", driver="GTiff", transform=place, **shape) as file:
        file.write(np.full((4, 40, 50), 700, np.uint16))
    run(python_examples()[1])
    with rasterio.open("out.tif") as dataset:
        assert dataset.res == (5.0, 5.0)
        assert dataset.tags()["model"] == "mine"


def python_examples() -> list[str]:
    return re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_readme_commands_exist():
    """Every option and command of the README is one of the command line."""
    blocks = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    lines = [ln for b in blocks for ln in b.splitlines() if ln.startswith("l1bsr-geo ")]
    assert len(lines) >= 7
    helps: dict[str, str] = {}
    for line in lines:
        words = shlex.split(line, comments=True)
        command = words[1:3] if words[1] in ("models", "simulate") else words[1:2]
        if " ".join(command) not in helps:
            done = subprocess.run(
                [sys.executable, "-m", "l1bsr_geo", *command, "--help"],
                capture_output=True,
                text=True,
                check=True,
                env={"COLUMNS": "200", "TERM": "dumb", "PATH": ""},
            )
            helps[" ".join(command)] = done.stdout
        for option in (w for w in words if w.startswith("--")):
            assert option in helps[" ".join(command)], line


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda p: p.stem)
def test_notebook(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    notebook = json.loads(path.read_text())
    cells = ["".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code"]
    assert not any(
        c.get("outputs") for c in notebook["cells"]
    )  # outputs stay out of the repository
    run("\n".join(cells))


def test_catalog_is_hydromt_v1():
    """The grammar of HydroMT v1: meta, and sources with data_type, uri, driver, metadata."""
    catalog = yaml.safe_load((ROOT / "data_catalog.yaml").read_text())
    meta = catalog.pop("meta")
    assert set(meta) <= {"roots", "version", "name", "hydromt_version", "validate_hydromt_version"}
    allowed = {"data_type", "uri", "driver", "metadata", "data_adapter", "placeholders", "variants"}
    assert catalog
    for name, source in catalog.items():
        assert set(source) <= allowed, name
        assert source["data_type"] == "RasterDataset"
        assert isinstance(source["uri"], str)
        assert source["driver"]["name"]
        assert source["metadata"]["source_url"].startswith("https://")
        for holder in source.get("placeholders", {}):
            assert f"{{{holder}}}" in source["uri"]
