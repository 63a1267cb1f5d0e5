"""SkySat collects and arrays of frames."""

import random
import re

import numpy as np
import pytest
import rasterio
from affine import Affine

from l1bsr_geo.simulation.fine_scenes import made_city
from l1bsr_geo.simulation.scenes import MapScene
from l1bsr_geo.simulation.skysat_collect import write_skysat_collect
from tests.synthetic import hostile
from tests.synthetic.confined import MEMORY, sr


@pytest.fixture
def collect(place):
    """Three small frames with RPCs and a table."""
    transform = Affine(0.5, 0, 500_000, 0, -0.5, 4_500_000)
    scene = MapScene(made_city((500, 500), seed=1)[None], transform, hostile.CRS, ("PAN",))
    return write_skysat_collect(
        place / "c", scene, frames=3, shape=(96, 112), pointing_error=0.0, geometry=("text",)
    ).folder


def burst(folder, output, *more):
    return ("sr", folder, output, "--model", "shift-and-add", *more)


def rewrite_rpcs(folder, pattern, value):
    for path in folder.glob("*_RPC.TXT"):
        path.write_text(re.sub(pattern, value, path.read_text(), flags=re.MULTILINE))


@pytest.mark.parametrize(
    ("pattern", "value"),
    [
        (r"^(\w+_COEFF_\d+):.*", r"\1: 0"),
        (r"^(LINE_DEN_COEFF_\d+):.*", r"\1: 0"),
        (r"^(SAMP_NUM_COEFF_1):.*", r"\1: nan"),
        (r"^(\w+_COEFF_\d+):.*", r"\1: 1e308"),
        (r"^(\w+_NUM_COEFF_\d+):.*", r"\1: 1e9999"),
        (r"^(\w+_SCALE):.*", r"\1: 0"),
        (r"^(\w+_SCALE):.*", r"\1: 1e-300"),
        (r"^(LAT_OFF):.*", r"\1: 500"),
        (r"^(LONG_SCALE):.*", r"\1: 1e12"),
        (r"^(LAT|LONG)_", r"SWAPPED_"),
    ],
)
def test_absurd_rpcs(run, collect, place, pattern, value):
    rewrite_rpcs(collect, pattern, value)
    run(*burst(collect, place / "o.tif")).harmless(place / "o.tif")


def test_absurd_rpc_in_a_process(process, collect, place):
    """The frames go without their geometry, and the user is told."""
    rewrite_rpcs(collect, r"^(\w+_COEFF_\d+):.*", r"\1: 1e308")
    outcome = process(*burst(collect, place / "o.tif"))
    outcome.done(place / "o.tif")
    assert "without its geometry" in outcome.stderr
    assert outcome.peak < MEMORY


def test_absurd_rpc_of_a_raster(run, place):
    zero = rasterio.rpc.RPC(
        0.0, 1.0, 0.0, 1.0, [0.0] * 20, [1.0] + [0.0] * 19, 0.0, 1.0, 0.0, 1.0,
        [0.0] * 20, [1.0] + [0.0] * 19, 0.0, 1.0,
    )  # fmt: skip
    source = hostile.write_raster(
        place / "i.tif", hostile.noise(), rpcs=zero, crs=None, transform=Affine.identity()
    )
    run(*sr(source, place / "o.tif")).refused("i.tif", "LINE_DEN")


def test_text_beside_frames_flipped(run, collect, place):
    rng = random.Random(0)
    output = place / "o.tif"
    table = collect / "frame_index.csv"
    sound = {path: path.read_bytes() for path in (table, *collect.glob("*_RPC.TXT"))}
    for n in range(20):
        for path, content in sound.items():
            (changed,) = hostile.flipped(content, 1, seed=rng.random())
            path.write_bytes(changed[: rng.randrange(len(changed))] if n % 4 == 0 else changed)
        output.unlink(missing_ok=True)
        run(*burst(collect, output)).harmless(output)


@pytest.mark.parametrize("cell", ["nan", "1e308", "-1", "POLYGON ((1e999 1, 2 2, 3 3))", '"'])
def test_tables_may_say_anything(run, collect, place, cell):
    table = collect / "frame_index.csv"
    head, *rows = table.read_text().splitlines()
    keep = head.split(",").index("name")
    for row, line in enumerate(rows):
        cells = [cell] * len(head.split(","))
        cells[keep] = line.split(",")[keep]
        rows[row] = ",".join(cells)
    table.write_text("\n".join([head, *rows]))
    run(*burst(collect, place / "o.tif")).harmless(place / "o.tif")


def test_frames_that_are_none(run, collect, place):
    output = place / "o.tif"
    first, second, _ = sorted(collect.glob("*.tif"))
    sound = first.read_bytes()
    first.unlink()
    first.mkdir()
    run(*burst(collect, output)).done(output)
    first.rmdir()
    first.write_bytes(sound[: len(sound) // 2])
    hostile.write_raster(second, np.ones((1, 50, 60), np.uint16))
    output.unlink()
    run(*burst(collect, output, "--frames", "1000000000")).done(output)
    for path in collect.glob("*.tif"):
        path.write_bytes(sound[:2000])
    run(*burst(collect, place / "p.tif")).refused("none of the 3 frames")


def test_a_frame_that_is_a_link_to_itself(run, collect, place):
    first = min(collect.glob("*.tif"))
    first.unlink()
    first.symlink_to(first.name)
    run(*burst(collect, place / "o.tif")).done(place / "o.tif")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[" * 100_000,
        '{"a":' * 100_000,
        "null",
        '{"P_projective": [[NaN]]}',
        '{"P_projective": "x"}',
        '{"P_projective": ' + "9" * 5000 + "}",
        '{"P_projective": [[1e999,0,0,0],[0,1,0,0],[0,0,1,0]]}',
        '{"P_camera": [1], "P_intrinsic": 2, "P_extrinsic": {}}',
    ],
)
def test_cameras_may_say_anything(run, collect, place, text):
    for path in collect.glob("*_RPC.TXT"):
        path.unlink()
    for path in collect.glob("*.tif"):
        path.with_name(path.stem + "_pinhole.json").write_text(text)
    run(*burst(collect, place / "o.tif")).harmless(place / "o.tif")


def test_arrays_that_are_none(run, process, place):
    canary, path, output = place / "canary", place / "a.npy", place / "o.tif"
    evil = np.array([hostile.Payload(canary)], dtype=object)
    np.save(path, evil, allow_pickle=True)
    process(*burst(path, output)).refused("a.npy")
    for header in (
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000, 1000000, 1000000), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 8, 8), }",
        f"__import__('os').mkdir({str(canary)!r})",
        "(" * 9000,
    ):
        run(*burst(hostile.write_npy(path, header), output)).refused("a.npy")
    for array in (
        np.full((3, 32, 32), np.nan, np.float32),
        np.zeros((0, 5, 5), np.uint16),
        np.zeros((3, 0, 5), np.uint16),
        np.ones((3, 20, 20), np.complex64),
        np.array(["a"] * 3),
        np.zeros((3, 8, 8), "datetime64[s]"),
        np.ones((3, 16, 16), np.uint16),
    ):
        np.save(path, array)
        run(*burst(path, output)).refused()
