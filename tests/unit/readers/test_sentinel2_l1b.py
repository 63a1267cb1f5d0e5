"""One detector, or the overlap of two, of small products with known pixels."""

import pickle
import shutil
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio

from l1bsr_geo.errors import (
    BadInputError,
    BadOptionError,
    GeometryWarning,
    L1bsrGeoWarning,
    MissingInputError,
)
from l1bsr_geo.geometry.grid import Window
from l1bsr_geo.images.bands import BandScene
from l1bsr_geo.readers.sentinel2_l1b import read_detector_crop, read_detector_overlap

Maker = Callable[..., Path]
ROWS, COLUMNS = 48, 60  # of a granule, as the maker writes them
RATIO = {"B02": 1, "B03": 1, "B8A": 2, "B10": 6}
IDS = {"B02": 1, "B03": 2, "B8A": 8, "B10": 10}

pytestmark = pytest.mark.filterwarnings("ignore:.*located by the granules' footprint corners")


def expected(detector: int, band: str, lines: int, columns: int = COLUMNS) -> np.ndarray:
    """The values that the maker writes, for the whole strip."""
    line = np.arange(lines // RATIO[band])[:, None]
    column = np.arange(columns // RATIO[band])[None, :]
    return 1000 * detector + 100 * IDS[band] + 5 * line + column + 1


def test_granules_are_put_below_each_other_by_position(make_safe: Maker) -> None:
    crop = read_detector_crop(make_safe({5: (49, 1, 97)}, bands=("B02",)), 5, ["B02"],
                              geometry="footprint")  # fmt: skip
    assert crop.detector == 5
    assert crop.first_line == 0
    assert crop.shape == (3 * ROWS, COLUMNS)
    window = Window(7, 40, 11, 70)  # over all three
    np.testing.assert_array_equal(
        crop.sources["B02"].read(window), expected(5, "B02", 3 * ROWS)[window.slices]
    )


def test_bands_are_found_by_name_and_keep_their_own_grids(make_safe: Maker) -> None:
    bands = ("B10", "B8A", "B03")
    crop = read_detector_crop(make_safe(bands=("B03", "B8A", "B10")), 5, bands,
                              geometry="footprint")  # fmt: skip
    assert crop.bands == bands
    assert crop.reference == "B03"
    for band in bands:
        whole = crop.grids[band].window
        assert whole.shape == (2 * ROWS // RATIO[band], COLUMNS // RATIO[band])
        assert crop.sources[band].shape == whole.shape
        np.testing.assert_array_equal(crop.sources[band].read(whole), expected(5, band, 2 * ROWS))


def test_radiometry_and_facts_come_with_the_band_id(make_safe: Maker) -> None:
    crop = read_detector_crop(make_safe(bands=("B03", "B8A"), root=True), 5, ("B03", "B8A"),
                              geometry="footprint")  # fmt: skip
    assert crop.add_offset == {"B03": -102, "B8A": -108}
    assert crop.nodata == 1
    assert crop.saturated == 4095
    assert crop.attrs["physical_gains"] == pytest.approx({"B03": 4.2, "B8A": 4.8})
    assert crop.attrs["noise_model"] == {"B03": (0.5, 0.02), "B8A": (0.5, 0.08)}
    assert crop.attrs["wavelengths"] == {"B03": 442, "B8A": 448}
    assert crop.attrs["platform"] == "S2A"
    assert crop.attrs["processing_baseline"] == "05.11"
    # the stamp of B03, 12:02:42.5 GPS, less 18 leap seconds
    assert crop.attrs["time"] == "2020-08-16T12:02:24.500000Z"
    assert crop.attrs["sun_zenith"] == pytest.approx(26)
    # 358 and 2 degrees make north, not south
    assert crop.attrs["view_azimuth"] % 360 == pytest.approx(0, abs=1e-6) or crop.attrs[
        "view_azimuth"
    ] == pytest.approx(360)


def test_without_a_datastrip_defaults_hold(make_safe: Maker) -> None:
    safe = make_safe(bands=("B02", "B03"), datastrip=False)
    with pytest.warns(GeometryWarning, match=r"B03 and B04 .* 100 m, B02 and B08 by up to 200 m"):
        crop = read_detector_crop(safe, 5, ("B02", "B03"))
    assert crop.add_offset == {"B02": 0, "B03": 0}
    assert (crop.nodata, crop.saturated) == (0, 65535)
    assert crop.attrs["geometry"] == "footprint"
    assert crop.attrs["time"] == "2020-08-16T12:02:26.430064Z"


def test_footprint_corners_are_centres_of_corner_pixels(make_safe: Maker) -> None:
    crop = read_detector_crop(make_safe({5: (1, 97)}, bands=("B03", "B8A")), 5, ("B03", "B8A"),
                              geometry="footprint", lines=(0, 48))  # fmt: skip
    lon, lat = crop.grids["B03"].localize([0.5, 59.5, 0.0], [0.5, 47.5, 20.0])
    np.testing.assert_allclose(lon, 10.02 + 1e-4 * np.array([0.5, 59.5, 0.0]), atol=1e-9)
    np.testing.assert_allclose(lat, 45 - 1e-4 * np.array([0.5, 47.5, 20.0]), atol=1e-9)
    at = crop.grids["B8A"].localize(10.0, 10.0)
    np.testing.assert_allclose(at, crop.grids["B03"].localize(20.0, 20.0), atol=1e-9)


def test_missing_granules_read_as_nodata_with_one_warning(make_safe: Maker) -> None:
    safe = make_safe({5: (1, 97, 193)}, bands=("B02", "B03"))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        crop = read_detector_crop(safe, 5, ("B02", "B03"), geometry="footprint")
    messages = [str(w.message) for w in caught if w.category is L1bsrGeoWarning]
    assert len(messages) == 1
    assert "lines 48 to 95, lines 144 to 191" in messages[0]
    assert crop.shape == (5 * ROWS, COLUMNS)
    pixels = crop.sources["B03"].read(crop.grids["B03"].window)
    assert not pixels[48:96].any()
    np.testing.assert_array_equal(pixels[96:144], expected(5, "B03", 144)[96:])
    views = BandScene(crop).read(Window(0, 40, 10, 20))
    np.testing.assert_array_equal(views.valid[0, 0].all(1), np.arange(20) < 8)


def test_lines_choose_a_stretch_at_whole_pixels_of_every_band(make_safe: Maker) -> None:
    safe = make_safe({5: (49, 97)}, bands=("B02", "B10"))
    crop = read_detector_crop(safe, 5, ("B02", "B10"), geometry="footprint", lines=(70, 100))
    assert crop.first_line == 66
    assert crop.shape == (36, COLUMNS)
    assert crop.grids["B10"].shape == (6, COLUMNS // 6)
    for band in crop.bands:
        strip = expected(5, band, 144)[66 // RATIO[band] : 102 // RATIO[band]]
        np.testing.assert_array_equal(crop.sources[band].read(crop.grids[band].window), strip)
    assert crop.grids["B02"].to_model.f == 66
    lon, lat = crop.grids["B02"].localize(0.0, 0.0)
    np.testing.assert_allclose((lon, lat), (10.02, 45 - 0.0066), atol=1e-9)
    whole = read_detector_crop(safe, 5, ("B02",), geometry="footprint", lines=(0, 10_000))
    assert (whole.first_line, whole.shape[0]) == (48, 96)
    with pytest.raises(BadOptionError, match="whose lines are 48 to 144"):
        read_detector_crop(safe, 5, ("B02",), geometry="footprint", lines=(200, 300))


def test_granules_outside_the_lines_are_not_needed(make_safe: Maker) -> None:
    safe = make_safe({5: (1, 49)}, bands=("B02",))
    shutil.rmtree(sorted(safe.glob("GRANULE/*"))[1] / "IMG_DATA")
    crop = read_detector_crop(safe, 5, ("B02",), geometry="footprint", lines=(0, 48))
    assert crop.shape == (48, COLUMNS)


def test_a_zip_reads_the_same(make_safe: Maker) -> None:
    safe = make_safe(bands=("B02",))
    archive = safe.parent / "product {1}.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as out:
        for file in sorted(safe.rglob("*")):
            out.write(file, f"{safe.name}/{file.relative_to(safe).as_posix()}")
    crops = [read_detector_crop(p, 5, ("B02",), geometry="footprint") for p in (safe, archive)]
    window = Window(3, 30, 20, 40)
    a, b = (c.sources["B02"].read(window) for c in crops)
    np.testing.assert_array_equal(a, b)
    assert crops[0].attrs == crops[1].attrs


def test_a_crop_is_picklable(make_safe: Maker) -> None:
    crop = read_detector_crop(make_safe(bands=("B02",)), 5, ("B02",), geometry="footprint")
    again = pickle.loads(pickle.dumps(crop))
    window = Window(0, 0, 5, 5)
    np.testing.assert_array_equal(again.sources["B02"].read(window),
                                  crop.sources["B02"].read(window))  # fmt: skip


def test_an_overlap_is_the_same_ground(make_safe: Maker) -> None:
    """Detector 5 starts 0.005 degrees, 50 columns, east of detector 4: 10 of 60 are in common."""
    safe = make_safe({4: (1, 49), 5: (1, 49, 97)}, bands=("B02", "B03"))
    overlap = read_detector_overlap(safe, 4, 5, ("B02", "B03"), geometry="footprint", margin=1)
    left, right = overlap.left, overlap.right
    assert left.shape == right.shape == (96, 8)
    middle = (left.shape[1] / 2, left.shape[0] / 2)
    np.testing.assert_allclose(
        left.grids["B03"].localize(*middle), right.grids["B03"].localize(*middle), atol=0.5e-4
    )
    np.testing.assert_array_equal(left.sources["B03"].read(Window(0, 0, 8, 96)),
                                  expected(4, "B03", 96)[:, 51:59])  # fmt: skip
    np.testing.assert_array_equal(right.sources["B03"].read(Window(0, 0, 8, 96)),
                                  expected(5, "B03", 96)[:, 1:9])  # fmt: skip


def test_only_neighbours_overlap(make_safe: Maker) -> None:
    safe = make_safe({4: (1,), 6: (1,)}, bands=("B02", "B8A"))
    with pytest.raises(BadOptionError, match="not neighbours"):
        read_detector_overlap(safe, 4, 6, ("B02",))
    with pytest.raises(BadOptionError, match="one resolution"):
        read_detector_overlap(safe, 4, 5, ("B02", "B8A"))
    with pytest.raises(MissingInputError, match="no granule of detector 5, only of 4, 6"):
        read_detector_overlap(safe, 4, 5, ("B02",), geometry="footprint")


def test_bad_input_is_one_line_that_names_the_file(make_safe: Maker) -> None:
    safe = make_safe(bands=("B02", "B03"))
    image = sorted(safe.glob("GRANULE/*/IMG_DATA/*_B02.jp2"))[1]

    def refused(kind: type[Exception], message: str, **options: object) -> None:
        with pytest.raises(kind, match=message) as error:
            read_detector_crop(safe, 5, **({"bands": ("B02",), "geometry": "footprint"} | options))  # type: ignore[arg-type]
        assert "\n" not in str(error.value)
        assert str(safe) in str(error.value) or kind is BadOptionError

    refused(MissingInputError, r"no image of B04 .*it has B02, B03", bands=("B04",))
    refused(BadInputError, "no attitude|attitude samples|orbit", geometry="model")
    refused(MissingInputError, "has no GEO_DATA grid", geometry="grids")
    refused(BadOptionError, "each once", bands=("B02", "B2"))
    whole = image.read_bytes()
    image.write_bytes(whole[: len(whole) // 2])
    refused(BadInputError, f"{image.name} is truncated: it has {len(whole) // 2} bytes")
    image.write_bytes(b"")
    refused(BadInputError, f"{image.name} is empty")
    image.unlink()
    refused(MissingInputError, "no image of B02")
    xml = next(safe.glob("DATASTRIP/*/*.xml"))
    xml.write_text("<n1:Level-1B_DataStrip_ID")
    refused(BadInputError, f"{xml.name} is not well-formed xml", bands=("B03",))


def test_real_metadata_give_the_instrument_model(shared: Path, tmp_path: Path) -> None:
    """One real granule with an all but empty image, located by the model of each band."""
    tds1 = shared / "data/sen2vm_tds1/L1B_SAFE"
    safe = tmp_path / "S2A_MSIL1B_20200816T120221_N0500_R023_20240830T000000.SAFE"
    granule = next(tds1.glob("GRANULE/*_S20200816T120230_D05_*"))
    shutil.copytree(granule, safe / "GRANULE" / granule.name)
    shutil.copytree(tds1 / "DATASTRIP", safe / "DATASTRIP")
    name = granule.name.removesuffix("_N05.00")
    folder = safe / "GRANULE" / granule.name / "IMG_DATA"
    folder.mkdir()
    for band, shape in (("B03", (2304, 2552)), ("B12", (1152, 1276))):
        with warnings.catch_warnings(action="ignore"), rasterio.open(
            folder / f"{name}_{band}.tif", "w", driver="GTiff", height=shape[0], width=shape[1],
            count=1, dtype="uint16", sparse_ok=True,
        ):  # fmt: skip
            pass
    crop = read_detector_crop(safe, 5, ("B03", "B12"), lines=(2304, 2904))
    assert crop.attrs["geometry"] == "model"
    assert crop.add_offset == {"B03": -100, "B12": -100}
    assert crop.first_line == 2304
    # official nodes: pixel centres at multiples of 600 (300) lines, with their own heights
    for band, line, step in (("B03", 2400, 600), ("B12", 1200, 300)):
        grids = shared / "data/sen2vm_tds1/ref_direct_grids"
        with (
            warnings.catch_warnings(action="ignore"),
            rasterio.open(next(grids.glob(f"*_S20200816T120230_D05_{band}.tif"))) as raster,
        ):
            lon, lat, h = raster.read()[:, 0]
        scale = 1 if band == "B03" else 2
        x = np.arange(5) * step + 0.5
        at = crop.grids[band].localize(x, line - crop.first_line // scale + 0.5, h)
        miss = np.hypot((at[0] - lon) * np.cos(np.radians(lat)), at[1] - lat) * 111_320
        assert miss.max() < 0.6
