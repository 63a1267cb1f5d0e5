"""Text over images, in a font of 3 x 5 pixels."""

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]

# a letter's five rows from the top, one octal digit each; its bits are the columns
_ROWS = (
    "25755 65656 34443 65556 74647 74644 34553 55755 72227 11152 55655 44447 57755 65555 "
    "25552 65644 25563 65655 34216 72222 55557 55522 55775 55255 55222 71247 75557 26227"
)
LETTERS: tuple[npt.NDArray[np.bool_], ...] = tuple(
    np.array([[int(digit) >> column & 1 for column in (2, 1, 0)] for digit in rows], bool)
    for rows in _ROWS.split()
)
"""A to Z, 0 and 1: (5, 3) each, true where there is ink."""

_SIZES = (1, 5)  # [px] least and most side of a font's pixel
_LENGTHS = (3, 12)  # letters to a word


def cover_with_text(image: F32, share: float, peak: float, rng: np.random.Generator) -> None:
    """Write words of any colour, size and place over an image, until a share of it is covered.

    Args:
        image: (C, H, W), changed in place.
        share: from 0 to 0.9.
        peak: colours are uniform from 0 to this.
        rng: of everything random.
    """
    bands, height, width = image.shape
    covered = np.zeros((height, width), bool)
    while covered.mean() < share:
        size = int(rng.integers(_SIZES[0], _SIZES[1] + 1))
        word = _write_word(rng, size)
        top = int(rng.integers(1 - word.shape[0], height))
        left = int(rng.integers(1 - word.shape[1], width))
        ink = word[max(-top, 0) : height - top, max(-left, 0) : width - left]
        rows = slice(max(top, 0), max(top, 0) + ink.shape[0])
        columns = slice(max(left, 0), max(left, 0) + ink.shape[1])
        colour = peak * rng.random((bands, 1), np.float32)
        image[:, rows, columns][:, ink] = colour
        covered[rows, columns] |= ink


def _write_word(rng: np.random.Generator, size: int) -> npt.NDArray[np.bool_]:
    length = int(rng.integers(_LENGTHS[0], _LENGTHS[1] + 1))
    gap = np.zeros((5, 1), bool)
    parts = [part for k in rng.integers(len(LETTERS), size=length) for part in (LETTERS[k], gap)]
    return np.kron(np.hstack(parts[:-1]), np.ones((size, size), bool))
