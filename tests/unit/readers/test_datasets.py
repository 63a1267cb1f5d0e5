"""Products as xarray opens them: lazily, by their own names, with everything that locates them."""

import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import xarray as xr
from affine import Affine

from l1bsr_geo.errors import BadInputError, BadOptionError, MissingInputError
from l1bsr_geo.readers.array_place import Origin, frame_of

ROWS, COLUMNS = 48, 60
BANDS = {"B02": 1, "B03": 2, "B04": 3, "B08": 7}
pytestmark = pytest.mark.filterwarnings("ignore:.*located by the granules' footprint corners")


def open_l1b(path, **options):
    return xr.open_dataset(path, engine="s2-l1b", geometry="footprint", **options)


def expected(lines=2 * ROWS):
    line, column = np.arange(lines)[:, None], np.arange(COLUMNS)
    return np.stack([5000 + 100 * number + 5 * line + column + 1 for number in BANDS.values()])


KEYS = [
    (slice(None), slice(None), slice(None)),
    (1, slice(40, 60), slice(3, 9)),
    (slice(None, None, -1), 50, slice(50, 10, -7)),
    ([3, 0], slice(90, 2, -9), [5, 5, 1]),
    (2, np.array([95, 0, 47]), -1),
    (slice(0, 0), slice(5), slice(5)),
]


@pytest.mark.parametrize("chunks", [None, {}, "auto", {"band": 4, "y": 96}])
def test_indexed_like_numpy(make_safe, chunks):
    dn = open_l1b(make_safe(), chunks=chunks, cache=False).dn
    for key in KEYS:
        found = dn.isel(dict(zip(dn.dims, key, strict=True))).values
        wanted = expected()
        for axis, part in reversed(list(enumerate(key))):
            wanted = np.take(wanted, np.arange(wanted.shape[axis])[part], axis)
        np.testing.assert_array_equal(found, wanted)


def test_reads_nothing_but_what_is_indexed(make_safe):
    safe = make_safe()
    dn = open_l1b(safe, cache=False).dn
    for image in safe.glob("GRANULE/*/IMG_DATA/*.jp2"):
        if "_B03" not in image.name:
            image.unlink()
    np.testing.assert_array_equal(dn.sel(band="B03").values, expected()[1])
    with pytest.raises((BadInputError, MissingInputError), match="B04"):
        dn.sel(band="B04").load()


def test_says_what_and_where_it_is(make_safe):
    dataset = open_l1b(make_safe())
    dn = dataset.dn
    assert dn.dims == ("band", "y", "x")
    assert dn.dtype == np.uint16
    assert list(dn.band.values) == list(BANDS)
    np.testing.assert_array_equal(dn.x, np.arange(COLUMNS) + 0.5)
    np.testing.assert_array_equal(dn.y, np.arange(2 * ROWS) + 0.5)
    assert dn.attrs["_FillValue"] == 0
    assert dn.encoding["preferred_chunks"] == {"band": 1, "y": 2 * ROWS, "x": COLUMNS}
    assert dn.encoding["grid_mapping"] == "spatial_ref"
    np.testing.assert_array_equal(dn.wavelength, [440 + i for i in BANDS.values()])
    assert dn.wavelength.attrs["units"] == "nm"
    # L = (DN + RADIO_ADD_OFFSET) / PHYSICAL_GAINS, as the maker writes them
    gains = np.array([4 + i / 10 for i in BANDS.values()])
    offsets = np.array([-100 - i for i in BANDS.values()])
    radiance = dn * dn.radiance_scale + dn.radiance_offset
    truth = (expected() + offsets[:, None, None]) / gains[:, None, None]
    np.testing.assert_allclose(radiance.values, truth, rtol=1e-12)
    steps = np.diff(dn.time.values).astype("timedelta64[ns]").astype(int)
    assert set(steps) == {1_500_000}  # ns of a line
    assert dataset.attrs["platform"] == "S2A"
    assert dataset.attrs["detector"] == 5
    origin = Origin.of(dn)
    assert origin.options == {"detector": 5, "geometry": "footprint", "gipp": None}


def test_any_part_knows_which_part_it_is(make_safe):
    dn = open_l1b(make_safe()).dn
    assert frame_of(dn) == Affine.identity()
    part = dn.isel(y=slice(20, 60), x=slice(7, None))
    assert frame_of(part) == Affine.translation(7, 20)
    assert frame_of(dn.sel(y=slice(20, 60)).isel(x=[9])) == Affine.translation(9, 20)
    assert frame_of(part[:, ::3, ::2]) == Affine(2, 0, 6.5, 0, 3, 19)
    assert frame_of(part.coarsen(y=4, x=4, boundary="trim").mean()) == Affine(4, 0, 7, 0, 4, 20)
    with pytest.raises(BadInputError, match="not evenly spaced"):
        frame_of(dn.isel(x=[1, 2, 4]))


def test_is_picklable_and_read_by_threads(make_safe):
    lazy = open_l1b(make_safe(), cache=False).dn
    again = pickle.loads(pickle.dumps(lazy))
    np.testing.assert_array_equal(again.values, expected())
    with ThreadPoolExecutor(4) as pool:
        rows = list(pool.map(lambda y: lazy.isel(y=y).values, range(2 * ROWS)))
    np.testing.assert_array_equal(np.stack(rows, 1), expected())


def test_survives_a_store(make_safe, tmp_path):
    dataset = open_l1b(make_safe(), chunks={})
    dataset.to_zarr(tmp_path / "copy.zarr", zarr_format=2)
    copy = xr.open_zarr(tmp_path / "copy.zarr", mask_and_scale=False, decode_coords="all")
    np.testing.assert_array_equal(copy.dn.values, expected())
    assert Origin.of(copy.dn) == Origin.of(dataset.dn)
    assert frame_of(copy.dn[:, 4:]) == Affine.translation(0, 4)


@pytest.mark.filterwarnings("ignore:.*lacks granules")
def test_masked_where_there_is_no_data(make_safe):
    safe = make_safe({5: (1, 97)})
    dn = open_l1b(safe, mask_and_scale=True).dn
    assert dn.dtype == np.float32
    gap = np.isnan(dn.values).all((0, 2))
    assert gap.tolist() == [False] * ROWS + [True] * ROWS + [False] * ROWS
    assert "dn" not in open_l1b(safe, drop_variables="dn")
    assert open_l1b(safe, bands="B04, B02").dn.band.values.tolist() == ["B04", "B02"]


def test_engines_are_sure_or_silent(make_safe, tmp_path):
    safe = make_safe()
    with xr.open_dataset(safe, geometry="footprint") as dataset:  # by its name
        assert dataset.dn.shape == (4, 2 * ROWS, COLUMNS)
    shutil.copytree(safe, tmp_path / "renamed")
    for path in (tmp_path / "renamed", tmp_path / "x.tif", tmp_path):
        with pytest.raises((ValueError, OSError)):
            xr.open_dataset(path)


def test_mistakes_are_one_line(make_safe, tmp_path):
    safe = make_safe({5: (1,), 6: (1,)}, bands=("B02", "B8A"))
    with pytest.raises(BadOptionError, match="holds detectors 5, 6"):
        open_l1b(safe, bands=["B02"])
    with pytest.raises(BadInputError, match="choose bands of one resolution"):
        open_l1b(safe, detector=5, bands=["B02", "B8A"])
    with pytest.raises(MissingInputError, match="is not there"):
        open_l1b(tmp_path / "nowhere.SAFE")


def test_frames_come_in_order_of_time(tmp_path):
    frames = np.arange(4 * 20 * 30, dtype=np.uint16).reshape(4, 20, 30)
    np.save(tmp_path / "stack.npy", frames)
    with pytest.warns(UserWarning, match="no exposure time"):
        dataset = xr.open_dataset(
            tmp_path / "stack.npy", engine="skysat-l1a", reference=2, chunks={}
        )
    assert dataset.dn.dims == ("time", "y", "x")
    np.testing.assert_array_equal(dataset.dn.values, frames)
    assert dataset.dn.data.chunks[0] == (1, 1, 1, 1)
    assert dataset.attrs["reference_frame"] == str(dataset.frame.values[2])
