"""Telling inputs apart, and the EOPF Zarr layout."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from l1bsr_geo.errors import BadInputError, BadOptionError, GeometryWarning, MissingInputError
from l1bsr_geo.geometry.grid import Window
from l1bsr_geo.images.bands import BandScene, DetectorCrop
from l1bsr_geo.readers.inputs import read_input, recognise_sensor
from l1bsr_geo.readers.sentinel2_l1b import read_detector_crop, read_detector_overlap

Maker = Callable[..., Path]
footprints = pytest.mark.filterwarnings("ignore:.*located by")


def write_store(path: Path, dtype: str = "uint16") -> Path:
    """Two detectors of 12 x 10 pixels, 1 line 1e-4 degrees; detector 2 starts 8 columns east."""
    zarr = pytest.importorskip("zarr")
    root = zarr.open_group(str(path), mode="w")
    facts = {
        "Radiometric_Offset": {b: {"RADIO_ADD_OFFSET": -100} for b in ("b02", "b03", "b8a")},
        "Spectral_Information": {b: {"Wavelength": {"CENTRAL": 500}} for b in ("b02", "b03")},
    }
    if dtype != "uint16":
        facts["Spectral_Band_Information"] = {b: {"PHYSICAL_GAINS": 4.0} for b in ("b02", "b03")}
    root.attrs.update(
        {
            "other_metadata": {"Radiometric_Info": facts},
            "stac_discovery": {
                "properties": {"platform": "Sentinel-2A", "start_datetime": "2024-04-03T00:00:00Z"}
            },
        }
    )
    for detector in (1, 2):
        folder = root.create_group(f"measurements/d0{detector}")
        for k, (band, ratio) in enumerate((("b02", 1), ("b03", 1), ("b8a", 2))):
            pixels = np.arange(120 // ratio**2).reshape(12 // ratio, 10 // ratio)
            pixels = (pixels + 1000 * detector + 300 * k).astype(dtype)
            folder.create_array(f"{band}/img", data=pixels)
        west = 10 + 8e-4 * (detector - 1)
        lat = np.repeat(45 - 1e-4 * np.array([[0.5], [6.0], [11.5]]), 2, axis=1)
        lon = np.repeat(west + 1e-4 * np.array([[0.5, 9.5]]), 3, axis=0)
        place = root.create_group(f"conditions/d0{detector}")
        place.create_array("footprint/latitude", data=lat)
        place.create_array("footprint/longitude", data=lon)
        place.create_array("geometry/sun_angles", data=np.array([[30.0, 100.0], [32.0, 100.0]]))
    return path


def test_an_eopf_store_is_a_detector_crop(tmp_path: Path) -> None:
    path = write_store(tmp_path / "S02MSIL1B_20240403T000000_0001_A123_T000.zarr")
    with pytest.warns(GeometryWarning, match="sides of the detector's footprint alone"):
        crop = read_detector_crop(path, 2, ("B8A", "B03"), lines=(3, 9))
    assert isinstance(crop, DetectorCrop)
    assert crop.first_line == 2
    assert crop.grids["B03"].shape == (8, 10)
    assert crop.grids["B8A"].shape == (4, 5)
    np.testing.assert_array_equal(
        crop.sources["B03"].read(Window(0, 0, 10, 8)), np.arange(20, 100).reshape(8, 10) + 2300
    )
    np.testing.assert_array_equal(
        crop.sources["B8A"].read(Window(1, 1, 2, 1)), [[2600 + 11, 2600 + 12]]
    )
    assert crop.add_offset == {"B8A": -100, "B03": -100}
    assert crop.attrs["platform"] == "S2A"
    assert crop.attrs["sun_zenith"] == pytest.approx(31, abs=0.01)
    lon, lat = crop.grids["B03"].localize([0.5, 4.0], [0.5, 3.0])
    np.testing.assert_allclose(lon, 10.0008 + 1e-4 * np.array([0.5, 4.0]), atol=1e-9)
    np.testing.assert_allclose(lat, 45 - 1e-4 * (2 + np.array([0.5, 3.0])), atol=1e-9)
    at = crop.grids["B8A"].localize(2.0, 1.5)
    np.testing.assert_allclose(at, crop.grids["B03"].localize(4.0, 3.0), atol=1e-9)


@footprints
def test_radiance_is_brought_to_counts(tmp_path: Path) -> None:
    crop = read_detector_crop(write_store(tmp_path / "a.zarr", "float32"), 1, ("B02", "B03"))
    assert crop.add_offset == {"B02": 0, "B03": 0}
    assert BandScene(crop).read(Window(0, 0, 1, 1)).pixels[0, 1, 0, 0] == 4 * 1300


@footprints
def test_a_zipped_store_reads_the_same(tmp_path: Path) -> None:
    store = write_store(tmp_path / "a.zarr")
    archive = Path(shutil.make_archive(str(tmp_path / "a.zarr"), "zip", store))
    window = Window(2, 3, 4, 5)
    one, two = (read_detector_crop(p, 1, ("B02",)).sources["B02"].read(window)
                for p in (store, archive))  # fmt: skip
    np.testing.assert_array_equal(one, two)


@footprints
def test_neighbours_in_a_store_overlap(tmp_path: Path) -> None:
    overlap = read_detector_overlap(write_store(tmp_path / "a.zarr"), 1, 2, ("B02",), margin=0)
    assert overlap.left.shape == (12, 2)
    np.testing.assert_array_equal(overlap.left.sources["B02"].read(Window(0, 0, 2, 1)),
                                  [[1008, 1009]])  # fmt: skip
    np.testing.assert_array_equal(overlap.right.sources["B02"].read(Window(0, 0, 2, 1)),
                                  [[2000, 2001]])  # fmt: skip


def test_stores_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    store = write_store(tmp_path / "a.zarr")
    zarr.open_group(str(tmp_path / "other.zarr"), mode="w")
    (tmp_path / "text.zarr.zip").write_text("x")
    refused = [
        ("gone.zarr", {}, MissingInputError, "is not there"),
        ("other.zarr", {}, BadInputError, "without /measurements"),
        ("text.zarr.zip", {}, BadInputError, "cannot be read as a Zarr product"),
        ("a.zarr", {"detector": 7}, MissingInputError, "has no detector 7, only d01, d02"),
        ("a.zarr", {"bands": ("B12",)}, MissingInputError, "no measurements/d01/b12/img, only b02"),
        ("a.zarr", {"geometry": "model"}, BadOptionError, "only --geometry footprint"),
        ("a.zarr", {"lines": (20, 30)}, BadOptionError, "whose lines are 0 to 12"),
    ]
    for name, options, kind, message in refused:
        arguments = {"detector": 1, "bands": ("B02",)} | options
        with pytest.raises(kind, match=message):
            read_detector_crop(tmp_path / name, **arguments)
    assert store.is_dir()


def test_without_the_extra_the_cure_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = write_store(tmp_path / "lonely.zarr")
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(MissingInputError, match=r"pip install l1bsr-geo\[zarr\]"):
        read_detector_crop(store, 1, ("B02",))


@footprints
def test_inputs_are_told_apart(make_safe: Maker, tmp_path: Path, shared: Path) -> None:
    safe = make_safe({5: (1,)}, bands=("B02", "B03"), datastrip=False)
    crop = read_input(safe, bands=("B02", "B03"))
    assert isinstance(crop, DetectorCrop)
    assert crop.detector == 5
    assert isinstance(read_input(write_store(tmp_path / "a.zarr"), detector=2,
                                 bands=("B02",)), DetectorCrop)  # fmt: skip
    stack = read_input(shared / "data/l1bsr_examples/00.tif", "raster",
                       bands=("B02", "B03", "B04", "B08"))  # fmt: skip
    assert not isinstance(stack, DetectorCrop)


def test_what_to_read_must_be_clear(make_safe: Maker, tmp_path: Path) -> None:
    safe = make_safe({4: (1,), 5: (1,)}, bands=("B02",))
    with pytest.raises(BadOptionError, match="holds detectors 4, 5; choose one with --detector"):
        read_input(safe, bands=("B02",))
    with pytest.raises(MissingInputError, match="is not there"):
        read_input(tmp_path / "gone")
    with pytest.raises(BadOptionError, match="--sensor radar"):
        read_input(safe, "radar")  # type: ignore[arg-type]
    (tmp_path / "a.tif").write_text("x")
    with pytest.raises(BadInputError):
        read_input(tmp_path / "a.tif")


def test_bursts_are_recognised(tmp_path):
    name = "1301717367.65046573_sc00108_c2_PAN_i0000000000.tif"
    (tmp_path / name).touch()
    assert recognise_sensor(tmp_path) == "skysat"
    assert recognise_sensor(tmp_path / name) == "skysat"
    assert recognise_sensor(tmp_path / "stack.npy") == "skysat"
    assert recognise_sensor(tmp_path / name, "raster") == "raster"
    assert recognise_sensor(tmp_path / "other.tif") == "auto"
    with pytest.raises(BadOptionError, match="sr --sensor skysat"):
        read_input(tmp_path)
