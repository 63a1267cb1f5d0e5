"""Figures of the Sentinel-2 instruments that ship with the package.

Viewing directions (degree-4 polynomials, within 0.5 mm on the ground) and spacecraft frame angles
of S2A, S2B and S2C, every version, fitted from the public GIPP files VIEDIR and SPAMOD
(github.com/sen2vm/sen2vm-gipp-database); each version carries the name of its file.
"""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Protocol, TypeVar

import numpy as np

from l1bsr_geo.errors import BadInputError
from l1bsr_geo.geometry.model import FloatArray
from l1bsr_geo.geometry.sentinel2 import ViewingDirections

NOMINAL_RANGE = 786e3  # [m] altitude of the orbit; turns angles into metres on the ground


class Version(Protocol):
    """A version of a parameter file."""

    @property
    def file(self) -> str:
        """Name of the GIPP file it comes from, without extension."""
        ...


@dataclass(frozen=True)
class ViewingDirectionsFile:
    """One version of the viewing directions of a band.

    Attributes:
        file: name of the GIPP VIEDIR file.
        lists: TDI configuration -> detector "01".."12" -> directions.
    """

    file: str
    lists: Mapping[str, Mapping[str, ViewingDirections]]

    def directions(self, detector: int, tdi: str | None) -> ViewingDirections:
        """Those of a detector, of the TDI configuration where the band has several lists."""
        chosen = self.lists.get(tdi or "", next(iter(self.lists.values())))
        return chosen[f"{detector:02d}"]


@dataclass(frozen=True)
class SpacecraftModel:
    """One version of the spacecraft frames.

    Attributes:
        file: name of the GIPP SPAMOD file.
        piloting_to_msi: (3,) angles about x, y, z [rad].
        msi_to_focal_plane: "VNIR" and "SWIR" -> (3,) angles [rad].
    """

    file: str
    piloting_to_msi: FloatArray
    msi_to_focal_plane: Mapping[str, FloatArray]


def viewing_directions(platform: str, band: str) -> list[ViewingDirectionsFile]:
    """Every shipped version of a band's viewing directions, oldest first.

    Args:
        platform: "S2A", "S2B" or "S2C".
        band: "B01" .. "B12", "B8A".

    Raises:
        BadInputError: for a satellite or band that is not shipped.
    """
    satellites = _figures("viewing_directions.json")
    if platform not in satellites or band not in satellites[platform]:
        raise BadInputError(
            f"no viewing directions of {platform} {band} are shipped (there are "
            f"{', '.join(satellites)}); give a folder of GIPP files with --gipp"
        )
    versions = sorted(satellites[platform][band], key=lambda v: creation(v["file"]))
    return [
        ViewingDirectionsFile(
            v["file"],
            {
                tdi: {
                    detector: ViewingDirections.from_polynomials(p["n"], p["x"], p["y"])
                    for detector, p in detectors.items()
                }
                for tdi, detectors in v["lists"].items()
            },
        )
        for v in versions
    ]


def spacecraft_models(platform: str) -> list[SpacecraftModel]:
    """Every shipped version of a satellite's frames, oldest first.

    Raises:
        BadInputError: for a satellite that is not shipped.
    """
    satellites = _figures("spacecraft_model.json")
    if platform not in satellites:
        raise BadInputError(
            f"no spacecraft model of {platform} is shipped (there are {', '.join(satellites)}); "
            "give a folder of GIPP files with --gipp"
        )
    return [
        SpacecraftModel(
            v["file"],
            np.asarray(v["piloting_to_msi_frame_mrad"]) * 1e-3,
            {
                "VNIR": np.asarray(v["msi_to_vnir_mrad"]) * 1e-3,
                "SWIR": np.asarray(v["msi_to_swir_mrad"]) * 1e-3,
            },
        )
        for v in sorted(satellites[platform], key=lambda v: creation(v["file"]))
    ]


AnyVersion = TypeVar("AnyVersion", bound=Version)


def choose_version(
    versions: Sequence[AnyVersion], named: Collection[str]
) -> tuple[AnyVersion, bool]:
    """The version that a product names, else the newest created; and whether it was named."""
    for version in versions:
        if version.file in named:
            return version, True
    return max(versions, key=lambda v: creation(v.file)), False


def creation(file: str) -> str:
    """Creation date in a GIPP file's name, ``..._MPC__20151117T131048_V2015...``: sortable."""
    match = re.search(r"_(\d{8}T\d{6})_V\d", file)
    return match[1] if match else ""


def directions_apart(a: ViewingDirections, b: ViewingDirections) -> tuple[float, float]:
    """How far two sets of directions differ on the ground, mean and largest [m]."""
    difference = np.hypot(a.tan_x - b.tan_x, a.tan_y - b.tan_y) * NOMINAL_RANGE
    return float(difference.mean()), float(difference.max())


def frames_apart(a: SpacecraftModel, b: SpacecraftModel) -> float:
    """How far two spacecraft models differ on the ground below, roughly [m]."""
    return float(np.hypot(*(a.piloting_to_msi - b.piloting_to_msi)[:2]) * NOMINAL_RANGE)


@cache
def _figures(name: str) -> dict[str, Any]:
    text = (files("l1bsr_geo.geometry") / "figures" / name).read_text(encoding="utf-8")
    satellites: dict[str, Any] = json.loads(text)["satellites"]
    return satellites
