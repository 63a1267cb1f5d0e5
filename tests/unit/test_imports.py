"""What is loaded for what: an analyst waits for every import, and pays it in memory."""

import subprocess
import sys

import pytest


def loaded(statement):
    """The modules that a statement loads, in a process of its own."""
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(run.stdout.split())


@pytest.mark.parametrize(
    ("statement", "not_wanted"),
    [
        ("import l1bsr_geo", {"torch", "rasterio", "xarray", "dask", "numpy"}),
        ("import l1bsr_geo.cli.main", {"torch", "rasterio", "xarray", "dask"}),
        # torch's compiler is half a second and 60 MB, and making a network on a whim loads it
        ("from l1bsr_geo import super_resolve", {"torch._dynamo", "sympy", "distributed"}),
        ("import l1bsr_geo.georef.cog", {"torch._dynamo", "sympy", "distributed"}),
    ],
)
def test_not_loaded(statement, not_wanted):
    assert not loaded(statement) & not_wanted
