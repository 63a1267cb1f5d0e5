"""Sentinel-2 products: metadata and images that lie."""

import re
import time

import numpy as np
import pytest
import rasterio

from tests.synthetic import hostile
from tests.synthetic.confined import granule_xml, image, ortho, sr


@pytest.mark.parametrize(
    ("pattern", "count"), [("GRANULE/*/*.xml", 15), ("DATASTRIP/*/*.xml", 25), ("*.xml", 6)]
)
def test_metadata_may_say_anything(run, safe, place, pattern, count):
    xml = next(safe.glob(pattern))
    output = place / "o.tif"
    for what, content in hostile.wrong_values(xml.read_bytes(), count):
        xml.write_bytes(content)
        output.unlink(missing_ok=True)
        outcome = run(*ortho(safe, output))
        print(what, outcome.code)
        outcome.harmless(output)


def test_metadata_cut_and_flipped(run, safe):
    xml = granule_xml(safe)
    content = xml.read_bytes()
    for n in range(12):
        xml.write_bytes(content[: len(content) * n // 12])
        run("info", safe).refused(str(xml.name))
    for changed in hostile.flipped(content, 40):
        xml.write_bytes(changed)
        outcome = run("info", safe)
        assert outcome.code == 0 or not outcome.refused()


@pytest.mark.parametrize(
    ("tag", "text", "said"),
    [
        ("NROWS", "1000000000", "pixels"),
        ("NROWS", "-96", "pixels"),
        ("NROWS", "90000", "has 96 lines"),
        ("POSITION", "999999999", "POSITION is 999999999"),
        ("EXT_POS_LIST", "", "EXT_POS_LIST"),
        ("EXT_POS_LIST", "91 5 0 " * 5, "latitudes and longitudes"),
        ("EXT_POS_LIST", "10 5 0 -10 5 0 -10 170 0 10 170 0 10 5 0", "leads nowhere"),
    ],
)
def test_absurd_sizes_and_places(run, safe, place, tag, text, said):
    xml = granule_xml(safe)
    whole = re.sub(rf"(?s)<{tag}>.*?</{tag}>", f"<{tag}>{text}</{tag}>", xml.read_text())
    xml.write_text(whole)
    run(*ortho(safe, place / "o.tif", "--geometry", "footprint")).refused(said)


def test_orbit_inside_the_earth(run, safe, place):
    xml = next(safe.glob("DATASTRIP/*/*.xml"))
    xml.write_text(re.sub(r"(<POSITION_VALUES[^>]*>)[^<]*", r"\g<1>1 2 3", xml.read_text()))
    run(*ortho(safe, place / "o.tif")).refused("leads nowhere")


@pytest.mark.parametrize("bomb", hostile.xml_bombs())
def test_xml_bombs(run, safe, bomb):
    granule_xml(safe).write_bytes(hostile.xml_bombs()[bomb])
    start = time.perf_counter()
    run("info", safe).refused()
    assert time.perf_counter() - start < 5


def test_odd_but_sound_xml(run, safe):
    xml = granule_xml(safe)
    text = xml.read_text()
    long = text.replace("</n1:Level", "<X>" + "x" * 50_000_000 + "</X></n1:Level")
    utf16 = text.replace("UTF-8", "UTF-16").encode("utf-16")
    for content in (long.encode(), utf16, b"\xef\xbb\xbf" + text.encode()):
        xml.write_bytes(content)
        assert run("info", safe).code == 0


def test_entity_bomb_in_a_process(process, safe):
    bombs = hostile.xml_bombs()
    granule_xml(safe).write_bytes(bombs["billion laughs"])
    process("info", safe).refused("forbidden xml")
    granule_xml(safe).write_bytes(bombs["one long text"])
    process("info", safe).refused("bytes")


def test_links_that_lead_in_circles(run, safe, place):
    (safe / "GRANULE" / "again").symlink_to(safe)
    (safe / "around").symlink_to(".")
    run(*ortho(safe, place / "o.tif")).done(place / "o.tif")
    picture = image(safe)
    picture.unlink()
    picture.symlink_to(picture.name)
    run(*ortho(safe, place / "p.tif")).refused(picture.name)


def test_names_in_metadata_lead_nowhere(run, safe, place):
    """Images are found by listing folders, so what IMAGE_FILE says does not matter."""
    xml = granule_xml(safe)
    names = "<IMAGE_FILE>../../../../secret</IMAGE_FILE><IMAGE_FILE>/etc/passwd</IMAGE_FILE>"
    xml.write_text(xml.read_text().replace("</n1:Level", names + "</n1:Level"))
    run(*ortho(safe, place / "o.tif")).done(place / "o.tif")


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (lambda jp2: jp2[: len(jp2) // 2], "truncated"),
        (hostile.huge_jp2, "pixels"),
        (lambda _: b"hello, world", ".jp2"),
        (lambda _: b"", "empty"),
        (lambda _: b"\0" * 10_000, ".jp2"),
        (lambda jp2: jp2[:-1] + b"<VRTDataset/>", ".jp2"),
        (lambda _: b"<GDAL_WMS></GDAL_WMS>" * 99, ".jp2"),
    ],
)
def test_broken_images(run, safe, place, break_it, said):
    picture = image(safe)
    picture.write_bytes(break_it(picture.read_bytes()))
    run(*ortho(safe, place / "o.tif")).refused(said, picture.name)


def test_damaged_code_blocks_do_no_harm(run, safe, place):
    """JPEG 2000 has no checksum: what still decodes cannot be told from an image."""
    picture = image(safe)
    for content in hostile.flipped(picture.read_bytes(), 15):
        picture.write_bytes(content)
        (place / "o.tif").unlink(missing_ok=True)
        run(*ortho(safe, place / "o.tif")).harmless(place / "o.tif")


def test_truncated_image_in_a_process(process, safe, place):
    picture = image(safe)
    picture.write_bytes(picture.read_bytes()[:-500])
    process(*sr(safe, place / "o.tif")).refused(picture.name, "truncated")


def test_location_grids_that_lie(run, safe, place):
    assert run("geolocate", safe, "--bands", "B03").code == 0
    grid = next(safe.glob("GRANULE/*/GEO_DATA/*_B03.tif"))
    with rasterio.open(grid) as raster:
        nodes, profile, tags = raster.read(), raster.profile, raster.tags()

    def rewrite(values, **said):
        with rasterio.open(grid, "w", **profile) as out:
            out.write(values)
            out.update_tags(**(tags | said))

    def refuse():
        run(*ortho(safe, place / "o.tif", "--geometry", "grids")).refused(safe.name)

    for change in (np.nan, np.inf, 1e30):
        broken = nodes.copy()
        broken[:, 1] = change
        rewrite(broken)
        refuse()
    rewrite(nodes * 0)
    refuse()
    for step in ("nan", "-1", "1e308", "x", "1e-9"):
        rewrite(nodes, LINE_STEP=step, PIXEL_STEP=step)
        refuse()


def test_vrt_of_grids_points_to_a_server(run, safe, place, server):
    """Its tags are wanted; what it points to is not followed."""
    assert run("geolocate", safe, "--bands", "B03").code == 0
    vrt = next(safe.glob("DATASTRIP/*/GEO_DATA/*_B03.vrt"))
    grid = next(safe.glob("GRANULE/*/GEO_DATA/*_B03.tif"))
    with rasterio.open(grid, "r+") as raster:
        raster.update_tags(LINE_STEP="", PIXEL_STEP="")
    hostile.write_vrt(vrt, f"/vsicurl/{server.url}/a.tif")
    run(*ortho(safe, place / "o.tif", "--geometry", "grids")).harmless(place / "o.tif")
    assert not server.reached
