"""Products in a .zip or a Zarr store."""

import json
import zipfile

from tests.synthetic import hostile
from tests.synthetic.confined import granule_xml, image, ortho


def test_zip_that_leads_out_of_itself(process, sound, place):
    evil = [(n, b"x") for n in ("../../out.txt", f"{place.parent}/abs.txt", "a\\..\\b", "/etc/x")]
    linked = [(hostile.link_entry(f"{sound.name}/GRANULE/link"), "/etc/passwd")]
    archive = hostile.pack(sound, place / "p.zip", evil + linked)
    process(*ortho(archive, place / "o.tif")).done(place / "o.tif")


def test_zip_bomb(process, sound, place):
    name = granule_xml(sound).relative_to(sound.parent).as_posix()
    archive = hostile.pack(sound, place / "p.zip", [(name, bytes(200 << 20))], leave_out="_MTD_L1B")
    assert archive.stat().st_size < 1 << 20
    process("info", archive).refused("bytes")


def test_zips_gone_wrong(run, sound, place):
    good = hostile.pack(sound, place / "good.zip")
    xml, picture = (
        p.relative_to(sound.parent).as_posix() for p in (granule_xml(sound), image(sound))
    )
    half = good.read_bytes()[: good.stat().st_size // 2]
    for content in (hostile.marked_encrypted(good), half, b"", b"hello"):
        (place / "p.zip").write_bytes(content)
        run("info", place / "p.zip").refused("p.zip")
    with zipfile.ZipFile(place / "nested.zip", "w") as outer:
        outer.write(good, "good.zip")
    run("info", place / "nested.zip").refused("nested.zip")
    link = [(hostile.link_entry(xml), "/etc/passwd")]
    run("info", hostile.pack(sound, place / "link.zip", link, leave_out=xml)).refused()
    run("info", hostile.pack(sound, place / "twice.zip", [(xml, b"junk")])).refused()
    zeros = hostile.pack(
        sound, place / "zeros.zip", [(picture, bytes(99 << 20))], leave_out=picture
    )
    run(*ortho(zeros, place / "o.tif")).refused()


def test_checksums_of_a_zip_are_minded(run, sound, place):
    """What GDAL would decode to a wrong image."""
    archive = hostile.pack(sound, place / "p.zip", method=zipfile.ZIP_STORED)
    content, picture = bytearray(archive.read_bytes()), image(sound).read_bytes()
    middle = content.find(picture) + len(picture) // 2
    content[middle : middle + 50] = bytes(50)
    archive.write_bytes(content)
    run(*ortho(archive, place / "o.tif")).refused("CRC")


def test_zips_flipped(run, sound, place):
    good = hostile.pack(sound, place / "good.zip").read_bytes()
    archive, output = place / "p.zip", place / "o.tif"
    for content in hostile.flipped(good, 25):
        archive.write_bytes(content)
        output.unlink(missing_ok=True)
        run(*ortho(archive, output)).harmless(output)


def test_zarr_of_pickles(run, process, place):
    canary = place / "canary"
    pickled = [{"id": "pickle"}]
    kinds = (
        {"filters": pickled},
        {"compressor": pickled[0]},
        {"filters": pickled, "dtype": "|O"},
        {"filters": [{"id": "delta", "dtype": "<u2"}, *pickled]},
    )
    for n, kind in enumerate(kinds):
        store = hostile.write_pickled_zarr(place / f"{n}.zarr", canary, **kind)
        run("info", store).refused(store.name)
    process(*ortho(place / "0.zarr", place / "o.tif")).refused("0.zarr")


def test_zarr_metadata_may_say_anything(run, place):
    store = hostile.write_pickled_zarr(place / "a.zarr", place / "canary")
    said = store / "measurements/d05/b03/img/.zarray"
    sound = json.loads(said.read_text())
    for change in (
        {"shape": [2**62, 2**62]},
        {"shape": [-1, 5]},
        {"shape": "x"},
        {"chunks": [2**40, 2**40], "shape": [2**20, 2**20]},
        {"dtype": "nix"},
        {"zarr_format": 9},
        {"compressor": {"id": "nix"}},
    ):
        said.write_text(json.dumps(sound | change))
        run("info", store).refused("a.zarr")
    for text in ("", "[" * 100_000, "null", "\0"):
        said.write_text(text)
        run("info", store).refused("a.zarr")
