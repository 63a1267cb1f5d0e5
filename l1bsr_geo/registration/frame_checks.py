"""What keeps a frame from being silently wrong: how a burst must agree with itself."""

import numpy as np

from l1bsr_geo.registration.frame_levels import Frame
from l1bsr_geo.registration.frame_refine import Fit, refine
from l1bsr_geo.registration.frame_search import correlation_score

CHANCE = 80.0  # score that unrelated frames hardly reach: similar fields did, at several places
BLURRED = 0.75  # sharpness against the others; a Gaussian blur of 0.8 px, good frames reach 0.95
DISAGREE = 0.08  # [px] allowed between two ways to a frame, beyond their uncertainties
_ROUNDS = 6


class Alignment:
    """The frames that have found their place so far, and those that have not.

    Attributes:
        fits: frame index to its place.
        rejected: frame index to the reason why it must not be used.
    """

    def __init__(self) -> None:
        self.fits: dict[int, Fit] = {}
        self.rejected: dict[int, str] = {}
        self._links: list[tuple[int, int, float]] = []

    def reject(self, frame: int, reason: str) -> None:
        """Take a frame out."""
        self.fits.pop(frame, None)
        self.rejected[frame] = reason

    def link(self, before: int, after: int, first: Frame, second: Frame) -> None:
        """Measure ``after`` against ``before``; note how far the way over the reference differs."""
        way = self.fits[after].motion @ np.linalg.inv(self.fits[before].motion)
        direct = refine(first.full, second.full, way, rounds=_ROUNDS)
        if direct is None:
            return  # they do not overlap
        if correlation_score(direct.correlation, direct.pixels) < CHANCE:
            self._links.append((before, after, np.inf))
            return
        places = np.column_stack([direct.cells.at, np.ones(len(direct.cells.at))])
        apart = (direct.motion - way)[:2] @ places.T
        expected = np.hypot(
            direct.uncertainty,
            np.hypot(self.fits[before].uncertainty, self.fits[after].uncertainty),
        )
        excess = float(np.sqrt(np.square(apart).sum(0).mean())) - 3 * float(expected)
        self._links.append((before, after, excess))

    def reject_blurred(self) -> None:
        """Take out frames that show much less fine detail than the others, or the reference."""
        shown = [fit.sharpness for fit in self.fits.values()]
        usual = float(np.median(shown)) if len(shown) > 1 else 1.0
        for frame, fit in list(self.fits.items()):
            if fit.sharpness < BLURRED * usual:
                share = 100 * fit.sharpness / usual
                self.reject(frame, f"it is blurred: {share:.0f} % of the usual fine detail")

    def reject_inconsistent(self) -> None:
        """Take out frames that disagree with their neighbours in time, the worst first."""
        while True:
            open_links = [
                link for link in self._links if link[0] in self.fits and link[1] in self.fits
            ]
            wrong = [link for link in open_links if link[2] > DISAGREE]
            if not wrong:
                return
            worst = max(
                {frame for link in wrong for frame in link[:2]},
                key=lambda f: (sum(f in link[:2] for link in wrong), self.fits[f].uncertainty),
            )
            apart = min(max(link[2] for link in wrong if worst in link[:2]), 99.0)
            self.reject(worst, f"its motion disagrees with the frames beside it by {apart:.2f} px")
