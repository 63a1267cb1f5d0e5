"""Planet's ``_pinhole.json`` of a frame to PinholeModel."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from l1bsr_geo.errors import BadInputError, MissingInputError
from l1bsr_geo.geometry.model import FloatArray
from l1bsr_geo.geometry.pinhole import PinholeModel


def read_pinhole(
    path: str | os.PathLike[str], shape: tuple[int, int] | None = None
) -> PinholeModel:
    """The camera of a frame, from ``P_projective`` or its factors.

    The principal point of these cameras is (1280, 540), the exact middle of 2560 x 1080 pixels
    counted from the outer corner: pixels are taken to be so counted, as everywhere here. (RPCs
    count from the first pixel's centre.) No public text says so; the doubt is half a pixel, far
    below the pointing error.

    Args:
        path: json file.
        shape: (height, width) of the frame; the file must be of that size.

    Raises:
        MissingInputError: nothing is there.
        BadInputError: not such a file, of another size, or a camera that does not see the Earth.

    Source: the keys as NeoGeographyToolkit/StereoPipeline reads them (cam_gen.cc).
    """
    path = Path(path)
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        projection = _projection(facts)
    except FileNotFoundError:
        raise MissingInputError(f"{path} is not there; a pinhole camera was expected") from None
    except (ValueError, KeyError, TypeError, OSError, RecursionError) as error:
        raise BadInputError(
            f"{path} holds no pinhole camera ({type(error).__name__}: {error}); P_projective, "
            "3 x 4 numbers, was expected"
        ) from error
    size = facts.get("height"), facts.get("width")
    if shape is not None and None not in size and size != tuple(shape):
        raise BadInputError(
            f"{path} is of {size[0]} x {size[1]} pixels, its frame of {shape[0]} x {shape[1]}"
        )
    model = PinholeModel(projection)
    height, width = shape or (1, 1)
    if not np.isfinite(model.localize(width / 2, height / 2)).all():
        raise BadInputError(f"{path}: the camera does not look at the Earth")
    return model


def _projection(facts: Any) -> FloatArray:
    if "P_projective" in facts:
        projection = np.array(facts["P_projective"], np.float64)
    else:
        camera, intrinsic, extrinsic = (
            np.array(facts[key], np.float64) for key in ("P_camera", "P_intrinsic", "P_extrinsic")
        )
        projection = camera @ (intrinsic @ extrinsic)[:3]
    if projection.shape != (3, 4) or not np.isfinite(projection).all():
        raise ValueError(f"a projection of shape {projection.shape}")
    if np.linalg.matrix_rank(projection[:, :3]) < 3:
        raise ValueError("a projection without a centre")
    return projection
