"""A product to run on, and the command line as users call it."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from l1bsr_geo.simulation.demo import DemoProduct, make_demo_product


@pytest.fixture(scope="session")
def demo(tmp_path_factory) -> DemoProduct:
    """One detector, two granules, hills and their DEM."""
    return make_demo_product(tmp_path_factory.mktemp("demo"))


@pytest.fixture(scope="session")
def cli() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run ``l1bsr-geo`` in a process of its own."""

    def run(*arguments: str | Path, **options) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "l1bsr_geo", *map(str, arguments)]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=300, check=False, **options
        )

    return run
