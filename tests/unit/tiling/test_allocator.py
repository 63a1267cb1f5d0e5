"""Freed memory is used again: seen by the pages that the kernel has to fill."""

import subprocess
import sys

import pytest

COUNT_FAULTS = """
import resource, sys
import numpy as np
if sys.argv[1] == "reuse":
    from l1bsr_geo.tiling.allocator import reuse_large_arrays
    reuse_large_arrays()
size = 48 * 2**20  # bytes; glibc maps what is larger than 32 MiB
np.ones(size, np.uint8)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    np.ones(size, np.uint8)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_an_array_takes_the_place_of_the_last_one():
    faults = {
        how: int(
            subprocess.run(
                [sys.executable, "-c", COUNT_FAULTS, how],
                capture_output=True,
                text=True,
                check=True,
                env={"NUMPY_MADVISE_HUGEPAGE": "0"},
            ).stdout
        )
        for how in ("reuse", "as it is")
    }
    assert faults["reuse"] < 0.1 * faults["as it is"]
