"""Finding the parts of L1B products."""

import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from l1bsr_geo.errors import BadInputError, L1bsrGeoWarning, MissingInputError
from l1bsr_geo.readers.sentinel2_metadata import band_name, parse_xml
from l1bsr_geo.readers.sentinel2_product import Product, open_product

Maker = Callable[..., Path]


def zip_of(safe: Path, extra: dict[str, str] | None = None) -> Path:
    archive = safe.with_suffix(".zip")
    with zipfile.ZipFile(archive, "w") as out:
        for file in sorted(safe.rglob("*")):
            out.write(file, file.relative_to(safe.parent).as_posix())
        for name, text in (extra or {}).items():
            out.writestr(name, text)
    return archive


def test_granules_are_ordered_by_detector_and_position(make_safe: Maker) -> None:
    product = open_product(make_safe({5: (49, 1), 4: (1,)}, bands=("B02",), root=True))
    assert [(g.detector, g.position) for g in product.granules] == [(4, 1), (5, 1), (5, 49)]
    assert product.platform == "S2A"
    assert product.detectors == (4, 5)
    assert product.metadata_path is not None
    assert product.datastrip_path is not None
    assert set(product.granules[0].images) == {"B02"}


@pytest.mark.parametrize("how", ["folder above", "datastrip xml", "granule xml", "root xml"])
def test_a_product_is_found_from_wherever_one_points(make_safe: Maker, how: str) -> None:
    safe = make_safe(bands=("B02",), root=True)
    path = {
        "folder above": safe.parent,
        "datastrip xml": next(safe.glob("DATASTRIP/*/*.xml")),
        "granule xml": next(safe.glob("GRANULE/*/*.xml")),
        "root xml": next(safe.glob("*.xml")),
    }[how]
    assert open_product(path) == open_product(safe)


def test_a_zip_holds_the_same_product(make_safe: Maker) -> None:
    safe = make_safe(bands=("B02", "B8A"))
    folder, zipped = open_product(safe), open_product(zip_of(safe))
    assert zipped.granules == folder.granules
    assert zipped.name == folder.name
    path = folder.granules[0].metadata
    assert zipped.read_bytes(path) == folder.read_bytes(path)


def test_names_that_leave_the_zip_are_ignored(make_safe: Maker) -> None:
    safe = make_safe(bands=("B02",))
    name = next(safe.glob("GRANULE/*")).name.replace("_D05_", "_D06_")
    xml = name.removesuffix("_N05.11").replace("_MSI_", "_MTD_") + ".xml"
    evil = {f"../{safe.name}/GRANULE/{name}/{xml}": "<x/>", f"/GRANULE/{name}/{xml}": "<x/>"}
    assert open_product(zip_of(safe, evil)).detectors == (5,)


def test_the_older_layout_is_the_same_inside(make_safe: Maker) -> None:
    old = "S2A_OPER_PRD_MSIL1B_PDMC_20151028T162205_R023_V20150816T120221_20150816T120245.SAFE"
    assert len(open_product(make_safe(bands=("B02",), name=old)).granules) == 2


def test_a_product_is_picklable_and_passes_through(make_safe: Maker) -> None:
    product = open_product(make_safe(bands=("B02",)))
    assert pickle.loads(pickle.dumps(product)) == product
    assert open_product(product) is product


def test_of_several_datastrips_the_one_that_granules_name_is_taken(make_safe: Maker) -> None:
    safe = make_safe(bands=("B02",))
    strip = next(safe.glob("DATASTRIP/*"))
    other = strip.with_name(strip.name.replace("T120220", "T110000"))
    other.mkdir()
    (other / "S2A_OPER_MTD_L1B_DS_TEST_20240101T000000_S20200816T110000.xml").write_text("<x/>")
    product = open_product(safe)
    assert product.datastrip_path is not None
    assert "T120220" in product.datastrip_path


def test_granules_of_another_datastrip_are_left_out_with_a_warning(make_safe: Maker) -> None:
    safe = make_safe({4: (1,), 5: (1, 49)}, bands=("B02",))
    xml = next(safe.glob("GRANULE/*_D04_*/*.xml"))
    xml.write_text(xml.read_text().replace("T120220", "T110000"))
    with pytest.warns(L1bsrGeoWarning, match="2 datastrips"):
        assert open_product(safe).detectors == (5,)


def test_the_real_metadata_are_understood(shared: Path) -> None:
    product = open_product(shared / "data/sen2vm_tds1/L1B_SAFE")
    assert product.detectors == tuple(range(1, 13))
    assert [g.position for g in product.granules_of(7)] == [1 + 2304 * k for k in range(6)]


def test_what_is_not_an_l1b_product_is_refused_in_one_line(
    tmp_path: Path, make_safe: Maker
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    l1c = tmp_path / "S2A_MSIL1C_20200816T120221_N0500_R023_T28SCB_20230101T000000.SAFE"
    l1c.mkdir()
    (l1c / "MTD_MSIL1C.xml").write_text("<x/>")
    text = tmp_path / "notes.xml"
    text.write_text("not an xml")
    nothing = tmp_path / "nothing.xml"
    nothing.write_bytes(b"")
    archive = tmp_path / "broken.zip"
    archive.write_bytes(b"PK nonsense")
    refused = [
        (tmp_path / "absent", MissingInputError, "is not there"),
        (empty, MissingInputError, "holds no granule or datastrip"),
        (l1c, BadInputError, "Level-1C product.*Level-1B was expected.*raster"),
        (text, BadInputError, "not well-formed xml"),
        (nothing, BadInputError, "is empty"),
        (archive, BadInputError, "cannot be read as a .zip"),
    ]
    for path, kind, message in refused:
        with pytest.raises(kind, match=message) as error:
            open_product(path)
        assert str(path) in str(error.value)
        assert "\n" not in str(error.value)
    with pytest.raises(MissingInputError, match="no granule of detector 7, only of 5"):
        open_product(make_safe(bands=("B02",))).granules_of(7)


def test_granule_metadata_that_lie_are_refused(make_safe: Maker) -> None:
    xml = next(make_safe(bands=("B02",)).glob("GRANULE/*/*.xml"))
    good = xml.read_text()
    for bad, message in (
        (good.replace("<POSITION>1<", "<POSITION>0<").replace("<POSITION>49<", "<POSITION>0<"),
         "POSITION is 0"),
        (good.replace("Granule_Position>", "Elsewhere>"), "has no Geometric_Info"),
        (good.replace("Level-1B_Granule_ID", "Level-1C_Tile_ID"), "Level-1C_Tile_ID"),
        ('<!DOCTYPE x [<!ENTITY a "b">]><x>&a;</x>', "forbidden xml"),
    ):  # fmt: skip
        xml.write_text(bad)
        with pytest.raises(BadInputError, match=message):
            open_product(xml.parents[2])
    xml.unlink()
    with pytest.raises(MissingInputError, match="has no metadata"):
        open_product(xml.parents[2])


def test_band_names_have_one_spelling() -> None:
    assert [band_name(b) for b in ("B2", "b02", "8a", "B12")] == ["B02", "B02", "B8A", "B12"]
    with pytest.raises(BadInputError, match="no Sentinel-2 band"):
        band_name("red")


def test_namespaces_are_dropped() -> None:
    root = parse_xml(b'<a:x xmlns:a="u"><a:y>1</a:y></a:x>', "x.xml")
    assert root.findtext("y") == "1"


def test_reading_what_is_not_there_names_it(make_safe: Maker) -> None:
    product = open_product(make_safe(bands=("B02",)))
    assert isinstance(product, Product)
    with pytest.raises(MissingInputError, match=r"gone\.xml is not there"):
        product.read_bytes("gone.xml")
