"""Map products: L1C and L2A, offsets by baseline, in folders and zips."""

import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

from l1bsr_geo.errors import BadInputError, MissingInputError
from l1bsr_geo.geometry.affine import AffineModel
from l1bsr_geo.geometry.grid import Window
from l1bsr_geo.readers.sentinel2_l1c import read_reflectance_product

IDS = {"B02": 1, "B03": 2, "B04": 3, "B08": 7, "B8A": 8}


def write_product(folder: Path, level: str = "L1C", offset: bool = True) -> Path:
    safe = folder / f"S2A_MSI{level}_20200816T120221_N0500_R023_T28SCB_20230101T000000.SAFE"
    tile = safe / "GRANULE" / f"{level}_T28SCB_A026904_20200816T120221" / "IMG_DATA"
    for band, number in IDS.items():
        size, metres = (8, 20) if band == "B8A" else (16, 10)
        name = f"T28SCB_20200816T120221_{band}"
        path = tile / f"{name}.jp2" if level == "L1C" else tile / f"R{metres}m/{name}_{metres}m.jp2"
        path.parent.mkdir(parents=True, exist_ok=True)
        with warnings.catch_warnings(action="ignore"), rasterio.open(
            path, "w", driver="JP2OpenJPEG", width=size, height=size, count=1, dtype="uint16",
            crs="EPSG:32628", transform=Affine(metres, 0, 300000, 0, -metres, 3700020),
            QUALITY=100, REVERSIBLE="YES",
        ) as out:  # fmt: skip
            out.write(np.full((1, size, size), 1000 + number, np.uint16))
    tag, values = ("RADIO", "Radiometric_Offset_List") if level == "L1C" else (
        "BOA", "BOA_ADD_OFFSET_VALUES_LIST")  # fmt: skip
    offsets = "".join(f'<{tag}_ADD_OFFSET band_id="{i}">{-1000 - i}</{tag}_ADD_OFFSET>'
                      for i in range(13))  # fmt: skip
    quantity = (
        '<QUANTIFICATION_VALUE unit="none">10000</QUANTIFICATION_VALUE>'
        if level == "L1C"
        else "<QUANTIFICATION_VALUES_LIST><BOA_QUANTIFICATION_VALUE>10000"
        "</BOA_QUANTIFICATION_VALUE></QUANTIFICATION_VALUES_LIST>"
    )
    (safe / f"MTD_MSI{level}.xml").write_text(
        f'<n1:Level-{level[1:]}_User_Product xmlns:n1="u"><n1:General_Info><Product_Info>'
        "<PROCESSING_BASELINE>05.00</PROCESSING_BASELINE><Datatake>"
        "<SPACECRAFT_NAME>Sentinel-2A</SPACECRAFT_NAME><DATATAKE_SENSING_START>2020-08-16T12:02:21"
        f"Z</DATATAKE_SENSING_START></Datatake></Product_Info><Product_Image_Characteristics>"
        f"<Special_Values><SPECIAL_VALUE_TEXT>SATURATED</SPECIAL_VALUE_TEXT><SPECIAL_VALUE_INDEX>"
        f"65534</SPECIAL_VALUE_INDEX></Special_Values>{quantity}"
        f"{f'<{values}>{offsets}</{values}>' if offset else ''}</Product_Image_Characteristics>"
        f"</n1:General_Info></n1:Level-{level[1:]}_User_Product>"
    )
    return safe


@pytest.mark.parametrize("level", ["L1C", "L2A"])
def test_bands_come_with_their_own_offsets_and_map(tmp_path: Path, level: str) -> None:
    stack = read_reflectance_product(write_product(tmp_path, level), ("B08", "B03", "B8A"))
    assert stack.bands == ("B08", "B03", "B8A")
    assert stack.add_offset == {"B08": -1007, "B03": -1002, "B8A": -1008}
    assert (stack.nodata, stack.saturated) == (0, 65534)
    assert stack.attrs["scale_factor"] == pytest.approx(1e-4)
    assert stack.attrs["level"] == level
    assert stack.attrs["platform"] == "S2A"
    assert stack.attrs["processing_baseline"] == "05.00"
    assert stack.attrs["time"].startswith("2020-08-16T12:02:21")
    assert stack.sources["B8A"].read(Window(0, 0, 2, 2))[0, 0] == 1008
    for band, shape, metres in (("B08", (16, 16), 10), ("B8A", (8, 8), 20)):
        grid = stack.grids[band]
        assert grid.shape == shape
        assert isinstance(grid.model, AffineModel)
        assert "32628" in grid.model.crs
        assert grid.model.transform.a == metres


def test_before_baseline_4_there_is_no_offset(tmp_path: Path) -> None:
    stack = read_reflectance_product(write_product(tmp_path, offset=False))
    assert stack.bands == ("B02", "B03", "B04", "B08")
    assert set(stack.add_offset.values()) == {0.0}


def test_a_zip_reads_the_same(tmp_path: Path) -> None:
    safe = write_product(tmp_path)
    archive = tmp_path / "p.zip"
    with zipfile.ZipFile(archive, "w") as out:
        for file in sorted(safe.rglob("*")):
            out.write(file, f"{safe.name}/{file.relative_to(safe).as_posix()}")
    stack = read_reflectance_product(archive)
    assert stack.sources["B04"].read(Window(3, 3, 1, 1)) == 1003
    assert stack.grids["B04"] == read_reflectance_product(safe).grids["B04"]


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    safe = write_product(tmp_path)
    with pytest.raises(MissingInputError, match=r"no image of B12.*it has B02, B03, B04, B08, B8A"):
        read_reflectance_product(safe, ("B12",))
    (safe / "MTD_MSIL1C.xml").unlink()
    with pytest.raises(BadInputError, match=r"no MTD_MSIL1C\.xml or MTD_MSIL2A\.xml"):
        read_reflectance_product(safe)
    other = safe / "GRANULE/L1C_T28SCC_A026904_20200816T120221/IMG_DATA"
    other.mkdir(parents=True)
    (other / "T28SCC_20200816T120221_B02.jp2").touch()
    (safe / "MTD_MSIL1C.xml").write_text("<x/>")
    with pytest.raises(BadInputError, match="holds 2 tiles"):
        read_reflectance_product(safe)
