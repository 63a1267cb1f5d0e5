"""Whether a geometry that a file tells leads to the ground, pixel beside pixel."""

import numpy as np

from l1bsr_geo.errors import BadInputError
from l1bsr_geo.geometry.ellipsoid import geodetic_to_ecef
from l1bsr_geo.geometry.grid import Window
from l1bsr_geo.geometry.model import GeometryModel

_SIZES = 1e-3, 1e5
"""What a pixel can measure on the ground [m] where nothing more is known."""

_SPREAD = 16.0  # ratio of the largest pixel to the smallest; a slanting view has 2


def check_ground(
    model: GeometryModel, window: Window, what: str, sizes: tuple[float, float] = _SIZES
) -> None:
    """Refuse a geometry whose pixels have impossible sizes: a map of it could be of any size.

    Args:
        model: the geometry.
        window: the pixels that there are.
        what: names the geometry in the message.
        sizes: least and largest side of a pixel on the ground [m].

    Raises:
        BadInputError: a pixel has no place on the ground, or is not of such a size.
    """
    columns, rows = (np.linspace(0, n, 5) for n in window.shape[::-1])
    x, y = np.meshgrid(window.col_off + columns, window.row_off + rows)
    with np.errstate(all="ignore"):  # a place nowhere is NaN, which is no size
        lon, lat = np.asarray(model.localize(x, y))
        place = geodetic_to_ecef(lon, np.where(np.abs(lat) <= 90, lat, np.nan), np.zeros_like(lon))
        along = np.linalg.norm(np.diff(place, axis=1), axis=0).ravel() / (window.height / 4)
        across = np.linalg.norm(np.diff(place, axis=2), axis=0).ravel() / (window.width / 4)
    sides = np.concatenate([along, across])
    alike = sides.max() <= _SPREAD * sides.min()
    if not (sizes[0] <= sides.min() and sides.max() <= sizes[1] and alike):  # NaN is neither
        raise BadInputError(
            f"{what} leads nowhere: pixels of {along.min():.3g} to {along.max():.3g} m by "
            f"{across.min():.3g} to {across.max():.3g} m on the ground, {sizes[0]:g} to "
            f"{sizes[1]:g} m were expected; the metadata are damaged: fetch them again"
        )
