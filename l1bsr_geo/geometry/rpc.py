"""The RPC sensor model: rational cubics in normalised lon, lat, height.

Coordinates here follow the one pixel convention (outer corner first). Vendors count an integer line
and sample at pixel centres, so half a pixel is added; GDAL does the same (OSGeo/gdal issue 3946).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from affine import Affine

from l1bsr_geo.geometry.model import Aligned, FloatArray, GeometryModel

_CHUNK = 1 << 12  # points at a time: temporaries stay in cache


@dataclass(frozen=True, eq=False)
class RPCModel:
    """RPC00B coefficients; offsets and scales as in the vendor's file (pixel centres at integers).

    Attributes:
        line_num: (20,) numerator of the line.
        line_den: (20,) denominator of the line.
        samp_num: (20,) numerator of the sample.
        samp_den: (20,) denominator of the sample.
        offset: LINE, SAMP [px], LAT, LONG [degrees], HEIGHT [m].
        scale: the same; signs are kept, some real files have a negative LAT_SCALE.
    """

    line_num: FloatArray
    line_den: FloatArray
    samp_num: FloatArray
    samp_den: FloatArray
    offset: Mapping[str, float]
    scale: Mapping[str, float]

    def project(
        self, lon: npt.ArrayLike, lat: npt.ArrayLike, h: npt.ArrayLike = 0.0
    ) -> tuple[FloatArray, FloatArray]:
        """``lon, lat`` [degrees] at height ``h`` [m] to pixel ``x, y``."""
        lon, lat, h = np.broadcast_arrays(*(np.asarray(v, np.float64) for v in (lon, lat, h)))
        x, y = np.empty(lon.size), np.empty(lon.size)
        flat = [v.ravel() for v in (lon, lat, h)]
        with np.errstate(all="ignore"):  # a zero denominator has no place: infinite, or NaN
            for start in range(0, lon.size, _CHUNK):
                piece = slice(start, start + _CHUNK)
                x[piece], y[piece] = self._project(*(v[piece] for v in flat))
        return x.reshape(lon.shape), y.reshape(lon.shape)

    def _project(
        self, lon: FloatArray, lat: FloatArray, h: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        around = self.offset["LONG"]
        lon = (lon - around + 180.0) % 360.0 - 180.0
        terms = _terms(
            (lat - self.offset["LAT"]) / self.scale["LAT"],
            lon / self.scale["LONG"],
            (h - self.offset["HEIGHT"]) / self.scale["HEIGHT"],
        )
        line_num, line_den, samp_num, samp_den = np.stack(self._coefficients) @ terms
        return (
            samp_num / samp_den * self.scale["SAMP"] + self.offset["SAMP"] + 0.5,
            line_num / line_den * self.scale["LINE"] + self.offset["LINE"] + 0.5,
        )

    def localize(
        self, x: npt.ArrayLike, y: npt.ArrayLike, h: npt.ArrayLike = 0.0
    ) -> tuple[FloatArray, FloatArray]:
        """Pixel to ``lon, lat`` [degrees] by Newton steps from the centre of the model.

        Steps are taken in metres-like units (degrees over the centre's Jacobian); a point where the
        model has no inverse gives NaN.
        """
        x, y, h = np.broadcast_arrays(*(np.asarray(v, np.float64) for v in (x, y, h)))
        lon = np.full(x.shape, self.offset["LONG"])
        lat = np.full(x.shape, self.offset["LAT"])
        small = 1e-6  # [degrees], 0.1 m: a secant slope, exact enough to converge quadratically
        miss = np.full(x.shape, np.inf)
        with np.errstate(all="ignore"):  # a point that is lost becomes NaN
            for _ in range(30):
                px, py = self.project(lon, lat, h)
                east_x, east_y = self.project(lon + small, lat, h)
                north_x, north_y = self.project(lon, lat + small, h)
                a, b, c, d = east_x - px, north_x - px, east_y - py, north_y - py
                det = a * d - b * c
                dx, dy = x - px, y - py
                miss = np.hypot(dx, dy)
                if np.all(miss < 1e-7):
                    break
                lon = lon + np.clip((d * dx - b * dy) / det * small, -0.5, 0.5)
                lat = lat + np.clip((a * dy - c * dx) / det * small, -0.5, 0.5)
        lost = ~(miss < 1e-3)
        return np.where(lost, np.nan, lon), np.where(lost, np.nan, lat)

    def cropped(self, col_off: float, row_off: float) -> "RPCModel":
        """The plain RPC of a window that starts at (col_off, row_off), for saving."""
        offset = dict(self.offset)
        offset["SAMP"] -= col_off
        offset["LINE"] -= row_off
        return RPCModel(*self._coefficients, offset, self.scale)

    def zoomed(self, factor: float, aligned: Aligned = "corner") -> "RPCModel":
        """The plain RPC of an image ``factor`` times finer, for saving.

        Corner alignment: OFF' = z OFF + (z - 1) / 2; centre alignment: OFF' = z OFF; both with
        SCALE' = z SCALE.
        """
        half = (factor - 1) / 2 if aligned == "corner" else 0.0
        offset, scale = dict(self.offset), dict(self.scale)
        for key in ("LINE", "SAMP"):
            offset[key] = factor * offset[key] + half
            scale[key] = factor * scale[key]
        return RPCModel(*self._coefficients, offset, scale)

    def seen_through(self, to_model: Affine) -> "RPCModel | None":
        """The plain RPC of a grid over this model (``GeoGrid.to_model``), for saving.

        None where the grid is turned or sheared: no plain RPC can say that.
        """
        if to_model.b or to_model.d:
            return None
        offset, scale = dict(self.offset), dict(self.scale)
        for key, step, start in (
            ("SAMP", to_model.a, to_model.c),
            ("LINE", to_model.e, to_model.f),
        ):
            offset[key] = (offset[key] + 0.5 - start) / step - 0.5
            scale[key] = scale[key] / step
        return RPCModel(*self._coefficients, offset, scale)

    @classmethod
    def fit(
        cls,
        model: GeometryModel,
        shape: tuple[int, int],
        heights: tuple[float, float] = (-500.0, 9000.0),
    ) -> "RPCModel":
        """The RPC that says what another model says, by least squares; for saving.

        Args:
            model: any model or grid that is smooth, such as a frame camera.
            shape: (height, width) [px] over which it must hold.
            heights: lowest and highest ground [m above the ellipsoid].
        """
        height, width = shape
        nodes = np.linspace(0, width, 21), np.linspace(0, height, 21), np.linspace(*heights, 7)
        x, y, h = (np.asarray(v, np.float64).ravel() for v in np.meshgrid(*nodes))
        lon, lat = model.localize(x, y, h)
        lon = (lon - lon[0] + 180.0) % 360.0 - 180.0 + lon[0]
        axes = {"LINE": y - 0.5, "SAMP": x - 0.5, "LAT": lat, "LONG": lon, "HEIGHT": h}
        offset = {k: float(v.max() + v.min()) / 2 for k, v in axes.items()}
        scale = {k: float(v.max() - v.min()) / 2 for k, v in axes.items()}
        unit = {k: (v - offset[k]) / scale[k] for k, v in axes.items()}
        terms = _terms(unit["LAT"], unit["LONG"], unit["HEIGHT"]).T
        return cls(
            *_fit_ratio(terms, unit["LINE"]), *_fit_ratio(terms, unit["SAMP"]), offset, scale
        )

    @property
    def _coefficients(self) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        return self.line_num, self.line_den, self.samp_num, self.samp_den


def _terms(p: FloatArray, q: FloatArray, r: FloatArray) -> FloatArray:
    """The 20 cubic terms of RPC00B, (20, N), in normalised latitude p, longitude q, height r."""
    pp, qq, rr, pq, qr, pr = p * p, q * q, r * r, p * q, q * r, p * r
    return np.stack(
        [
            *(np.ones_like(p), q, p, r, pq, qr, pr, qq, pp, rr),
            *(pq * r, qq * q, q * pp, q * rr, qq * p, pp * p, p * rr),
            *(qq * r, pp * r, rr * r),
        ]
    )


def _fit_ratio(terms: FloatArray, values: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Numerator and denominator (first coefficient 1) whose ratio takes values at terms.

    Linear after multiplication by the denominator, which the second pass knows and divides by. Many
    of the 39 unknowns say the same over a small scene: the smallest of the good answers is taken.
    """
    denominator = np.ones_like(values)
    for _ in range(3):
        system = np.hstack([terms, -values[:, None] * terms[:, 1:]]) / denominator[:, None]
        answer = np.linalg.lstsq(system, values / denominator, rcond=1e-11)[0]
        bottom = np.concatenate([[1.0], answer[20:]])
        denominator = terms @ bottom
    return np.asarray(answer[:20]), np.asarray(bottom)
