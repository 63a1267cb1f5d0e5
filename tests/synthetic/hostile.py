"""Hostile inputs, made where they are needed: nothing of the kind is stored.

Most start from something sound and break it; random damage is seeded.
"""

import copy
import json
import os
import pickle
import random
import shutil
import struct
import warnings
import zipfile
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from xml.etree import ElementTree as ET

import numpy as np
import rasterio
import torch
from affine import Affine

from l1bsr_geo.geometry.grid import Window
from l1bsr_geo.simulation.datastrip import write_metadata
from l1bsr_geo.simulation.overpass import Overpass
from l1bsr_geo.simulation.rendering import map_bounds
from l1bsr_geo.simulation.scenes import TEN_METRE_BANDS, procedural_scene
from l1bsr_geo.simulation.sentinel2_product import write_l1b_product

CRS = "EPSG:32631"
WRONG = ("nan", "inf", "-1", "0", "1e308", "999999999", "abc", "1 2 3", "")
ON_A_MAP = {"crs": CRS, "transform": Affine(10, 0, 500_000, 0, -10, 5_000_000)}


class Payload:
    """Unpickled, it leaves a file: proof that code ran."""

    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return os.mkdir, (str(self.canary),)


def small_product(folder):
    """One granule of 96 lines of detector 5, 10 m bands; the path of its .SAFE."""
    flight = Overpass(lon=5.02, lat=44.75, detectors=(5,), granules=1, granule_lines=96)
    window = Window(900, 0, 128, 96)
    models = {(5, band): flight.model(5, band) for band in TEN_METRE_BANDS}
    bounds = map_bounds(models.values(), window, CRS, (0.0, 1000.0))
    scene = procedural_scene(bounds, CRS, 0)
    with TemporaryDirectory() as metadata:
        write_metadata(Path(metadata), flight)
        return write_l1b_product(folder, scene.seen_by(), models, metadata, window=window)


# xml


def wrong_values(xml, count, seed=0):
    """``count`` variants of a document, each with a value, attribute or element gone wrong."""
    rng = random.Random(seed)
    root = ET.fromstring(xml)
    size = len(list(root.iter()))
    for _ in range(count):
        made = copy.deepcopy(root)
        element = list(made.iter())[rng.randrange(1, size)]
        alike = list(made.iter(element.tag)) if rng.random() < 0.5 else [element]
        how = rng.random()
        wrong = rng.choice(WRONG)
        for one in alike:
            if how < 0.15:
                parents = {child: parent for parent in made.iter() for child in parent}
                parents[one].remove(one)
            elif how < 0.35 and one.attrib:
                one.set(rng.choice(sorted(one.attrib)), wrong)
            else:
                one.text = wrong
        yield f"{element.tag}={wrong!r}", ET.tostring(made)


def flipped(content, count, seed=0, within=None):
    """``count`` variants of some bytes, with 1 to 30 of them changed."""
    rng = random.Random(seed)
    for _ in range(count):
        made = bytearray(content)
        for _ in range(rng.choice([1, 5, 30])):
            made[rng.randrange(within or len(made))] = rng.randrange(256)
        yield bytes(made)


def xml_bombs():
    """Name to xml that would read files, reach servers, or grow without end."""
    laughs = "".join(f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in pairwise("abcdefghi"))
    return {
        "billion laughs": f'<!DOCTYPE l [<!ENTITY a "{"x" * 100}">{laughs}]><l>&i;</l>'.encode(),
        "external file": b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>',
        "external dtd": b'<!DOCTYPE a SYSTEM "http://127.0.0.1:9/x.dtd"><a/>',
        "parameter entity": b'<!DOCTYPE a [<!ENTITY % x SYSTEM "http://127.0.0.1:9/"> %x;]><a/>',
        "deep nesting": b"<a>" * 100_000 + b"</a>" * 100_000,
        "nesting without end": b"<a>" * 100_000,
        "millions of tags": b"<r>" + b"<a/>" * 2_100_000 + b"</r>",
        "one long text": b"<r>" + b"x" * (70 << 20) + b"</r>",
        "zero bytes": b"\0" * 5000,
        "empty": b"",
        "unknown encoding": b'<?xml version="1.0" encoding="nix"?><a/>',
        "no encoding of text": b'<?xml version="1.0" encoding="zlib"?><a/>',
    }


# zip


def pack(safe, archive, extra=(), leave_out=None, method=zipfile.ZIP_DEFLATED):
    """A product in a .zip, with further entries (name or ZipInfo, content)."""
    with warnings.catch_warnings(), zipfile.ZipFile(archive, "w", method) as opened:
        warnings.simplefilter("ignore")  # doubled names are meant
        for path in sorted(p for p in safe.rglob("*") if p.is_file()):
            name = path.relative_to(safe.parent).as_posix()
            if leave_out is None or leave_out not in name:
                opened.write(path, name)
        for name, content in extra:
            opened.writestr(name, content)
    return archive


def link_entry(name):
    """An entry of a .zip that unpacks to a symbolic link."""
    entry = zipfile.ZipInfo(name)
    entry.create_system, entry.external_attr = 3, 0o120777 << 16
    return entry


def marked_encrypted(archive):
    """The bytes of a .zip, every entry flagged as encrypted."""
    made = bytearray(archive.read_bytes())
    for mark, at in ((b"PK\1\2", 8), (b"PK\3\4", 6)):
        start = 0
        while (start := made.find(mark, start)) >= 0:
            made[start + at] |= 1
            start += 4
    return bytes(made)


# images


def huge_jp2(content):
    """A JPEG 2000 file whose headers declare 2^31 - 1 pixels either way, in one tile."""
    made, most = bytearray(content), 2**31 - 1
    box, size = content.find(b"ihdr"), content.find(b"\xff\x51")
    for at in (box + 4, size + 6, size + 22):
        made[at : at + 8] = struct.pack(">II", most, most)
    return bytes(made)


def write_raster(path, pixels, **options):
    """A GeoTIFF of (B, H, W) pixels on a map."""
    pixels = pixels if pixels.ndim == 3 else pixels[None]
    count, height, width = pixels.shape
    with warnings.catch_warnings(action="ignore"), rasterio.open(
        path, "w", driver="GTiff", count=count, height=height, width=width, dtype=pixels.dtype,
        **(ON_A_MAP | options),
    ) as out:  # fmt: skip
        out.write(pixels)
    return path


def write_sparse(path, side=10**6):
    """A GeoTIFF of some megabytes that declares a side of a million pixels."""
    with rasterio.open(
        path, "w", driver="GTiff", count=4, height=side, width=side, dtype="uint16", tiled=True,
        blockxsize=2048, blockysize=2048, SPARSE_OK="TRUE", BIGTIFF="YES", **ON_A_MAP,
    ):  # fmt: skip
        pass
    return path


def write_vrt(path, source, relative=0, python=None):
    """A .vrt of four bands over a source; with Python code as pixel function where given."""
    kind = "" if python is None else ' subClass="VRTDerivedRasterBand"'
    code = ""
    if python is not None:
        code = (
            "<PixelFunctionType>f</PixelFunctionType><PixelFunctionLanguage>Python"
            f"</PixelFunctionLanguage><PixelFunctionCode><![CDATA[{python}]]></PixelFunctionCode>"
        )
    bands = "".join(
        f'<VRTRasterBand dataType="UInt16" band="{i}"{kind}>{code}<SimpleSource><SourceFilename '
        f'relativeToVRT="{relative}">{source}</SourceFilename><SourceBand>{i}</SourceBand>'
        "</SimpleSource></VRTRasterBand>"
        for i in range(1, 5)
    )
    path.write_text(
        f'<VRTDataset rasterXSize="64" rasterYSize="64"><SRS>{CRS}</SRS><GeoTransform>500000,10,0,'
        f"5000000,0,-10</GeoTransform>{bands}</VRTDataset>"
    )
    return path


def write_map_server(path, url):
    """What GDAL takes for an image whose tiles are on a server, and cached beside it."""
    path.write_text(
        f'<GDAL_WMS><Service name="TMS"><ServerUrl>{url}/${{z}}/${{x}}/${{y}}.png</ServerUrl>'
        "</Service><DataWindow><UpperLeftX>-20037508</UpperLeftX><UpperLeftY>20037508</UpperLeftY>"
        "<LowerRightX>20037508</LowerRightX><LowerRightY>-20037508</LowerRightY><TileLevel>2"
        "</TileLevel><TileCountX>1</TileCountX><TileCountY>1</TileCountY><YOrigin>top</YOrigin>"
        "</DataWindow><Projection>EPSG:3857</Projection><BlockSizeX>256</BlockSizeX><BlockSizeY>"
        "256</BlockSizeY><BandsCount>4</BandsCount><Cache/></GDAL_WMS>"
    )
    return path


def write_npy(path, header, content=b"0" * 4096):
    """A numpy file with a header of one's own."""
    text = header.encode() + b" " * (-(len(header) + 11) % 64) + b"\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + content)
    return path


def write_pickled_zarr(path, canary, filters=None, compressor=None, dtype="<u2"):
    """An EOPF Zarr whose pixels are to be unpickled."""
    image = path / "measurements/d05/b03/img"
    image.mkdir(parents=True)
    for group in (image, *image.parents):
        if path in (group, *group.parents) and group != image:
            (group / ".zgroup").write_text('{"zarr_format": 2}')
    told = {"zarr_format": 2, "shape": [96, 128], "chunks": [96, 128], "dtype": dtype, "order": "C"}
    told |= {"compressor": compressor, "fill_value": 0, "filters": filters}
    (image / ".zarray").write_text(json.dumps(told))
    (image / "0.0").write_bytes(pickle.dumps(Payload(canary)))
    return path


# weights


def write_pickles(folder, canary):
    """Files that would run code where they are unpickled, as torch and pickle write them."""
    payload = {"state_dict": {"weight": Payload(canary)}}
    torch.save(payload, folder / "zipped.pth")
    torch.save(payload, folder / "legacy.pth", _use_new_zipfile_serialization=False)
    (folder / "plain.pkl").write_bytes(pickle.dumps(payload))
    (folder / "ascii.pkl").write_bytes(pickle.dumps(payload, protocol=0))
    return [folder / n for n in ("zipped.pth", "legacy.pth", "plain.pkl", "ascii.pkl")]


def split_safetensors(path):
    """Header (a dictionary) and tensors (bytes) of a safetensors file."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def join_safetensors(path, header, body, length=None):
    """A safetensors file of a header (dictionary or bytes), whose length may be a lie."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + body)
    return path


def copy_of(safe, folder):
    """A copy of a product to be broken."""
    target = folder / safe.name
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(safe, target)
    return target


def noise(shape=(4, 64, 64), dtype="uint16", seed=0):
    """Pixels of 100 to 1100 DN."""
    return (np.random.default_rng(seed).random(shape) * 1000 + 100).astype(dtype)
