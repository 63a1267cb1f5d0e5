"""Displacement between two small images of the same ground: other sensors, days and seasons."""

import numpy as np
import numpy.typing as npt

from l1bsr_geo.registration.phase import band_pass, correlate_blocks, orientation

SEARCH = 15
"""The largest displacement that is found [px]."""


def match_patch(
    reference: npt.NDArray[np.float32],
    reference_valid: npt.NDArray[np.bool_],
    image: npt.NDArray[np.float32],
    image_valid: npt.NDArray[np.bool_],
) -> tuple[float, float, float]:
    """Find a patch of a reference in an image, by phase correlation of gradient orientations.

    Units, scale and contrast of the two may differ, also in sign.

    Args:
        reference: (height, width), 32 px or more each way.
        reference_valid: the same shape.
        image: the same shape.
        image_valid: the same shape.

    Returns:
        dx, dy [px]: what the reference shows at p is in the image at p + (dx, dy); and the height
        of the correlation's peak in its noise (noise alone stays below 5).
    """
    features = orientation(band_pass(reference, reference_valid)) * reference_valid
    other = orientation(band_pass(image, image_valid)) * image_valid
    start, height, width = np.zeros(1, np.intp), *reference.shape
    guess = np.zeros((1, 1, 2))
    found = correlate_blocks(features, other, guess, start, start, (height, width), SEARCH)
    dx, dy = found.shift[0, 0]
    return float(dx), float(dy), float(found.significance[0, 0])
