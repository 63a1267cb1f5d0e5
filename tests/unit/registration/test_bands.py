"""Bands are registered to hundredths of a pixel, and nothing to match is no disaster."""

import warnings
from dataclasses import dataclass, replace

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.errors import NotGeoreferencedWarning
from scipy import ndimage

from l1bsr_geo.errors import BadInputError, BadOptionError, L1bsrGeoWarning
from l1bsr_geo.geometry.affine import AffineModel
from l1bsr_geo.geometry.grid import GeoGrid, Window
from l1bsr_geo.images.flow import FlowField
from l1bsr_geo.registration.bands import geometric_flow, register_bands

MEASURES = ("parabola", "upsampled", "linear")


# --- the acceptance measure, independent of the code under test -----------------------------------


def block_shifts(reference, other, block, measure):
    """Gradient phase correlation of whole blocks: (blocks, 2) shifts (dx, dy) [px]."""
    a, b = (_gradient_magnitude(v, log=measure != "linear") for v in (reference, other))
    taper = np.outer(np.hanning(block), np.hanning(block))
    shifts = []
    for y in range(0, a.shape[0] - block + 1, block):
        for x in range(0, a.shape[1] - block + 1, block):
            pair = (v[y : y + block, x : x + block] for v in (a, b))
            fa, fb = (np.fft.fft2((v - v.mean()) * taper) for v in pair)
            cross = fb * np.conj(fa)
            shifts.append(_peak(cross / (np.abs(cross) + 1e-12), measure))
    return np.array(shifts)


def _gradient_magnitude(image, log):
    gy, gx = np.gradient(np.log(np.maximum(image, 1)) if log else image)
    return np.hypot(gx, gy)


def _peak(cross, measure):
    n = len(cross)
    surface = np.fft.fftshift(np.fft.ifft2(cross).real)
    j, i = np.unravel_index(surface.argmax(), surface.shape)
    y, x = float(j - n // 2), float(i - n // 2)
    if measure == "upsampled":  # matrix Fourier transform, 1/50 px
        fine, f = np.arange(-50, 51) / 50, np.fft.fftfreq(n)
        rows = np.exp(2j * np.pi * np.outer(y + fine, f))
        columns = np.exp(2j * np.pi * np.outer(f, x + fine))
        j, i = np.unravel_index((rows @ cross @ columns).real.argmax(), (101, 101))
        return x + fine[i], y + fine[j]
    j, i = np.clip((j, i), 1, n - 2)
    return x + _vertex(surface[j, i - 1 : i + 2]), y + _vertex(surface[j - 1 : j + 2, i])


def _vertex(three):
    before, top, after = three
    return 0.5 * (before - after) / (before - 2 * top + after)


def resample(image, flow, scale):
    """Cubic spline at p + flow(p), p the pixel centres of a grid ``scale`` times finer."""
    fine = [(np.arange(n * scale) + 0.5) / scale - 0.5 for n in image.shape]
    at = np.stack(np.meshgrid(*fine, indexing="ij"))
    move = [ndimage.map_coordinates(f, at, order=1, mode="nearest") for f in flow[::-1]]
    return ndimage.map_coordinates(image, at + move, order=3, mode="nearest")


@pytest.fixture(scope="session")
def crops(shared):
    pixels = []
    for path in sorted((shared / "data/l1bsr_examples").glob("0[0-4].tif")):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)  # these files have no geometry
            with rasterio.open(path) as file:
                pixels.append(file.read())
    assert len(pixels) == 5
    return pixels


@pytest.fixture(scope="session")
def registered(crops, stack_of):
    """Scale to crops with all bands brought onto B03."""
    flows = [register_bands(stack_of(c)).read(Window(0, 0, 352, 352)) for c in crops]
    return {
        scale: [
            [resample(b.astype(float), f, scale) for b, f in zip(pixels, flow, strict=True)]
            for pixels, flow in zip(crops, flows, strict=True)
        ]
        for scale in (1, 2)
    }


def misalignment(images, scale, measure):
    """Median over all 88-px blocks of all images, per band (B02, B04, B08) [input px]."""
    shifts = [
        [block_shifts(bands[1], bands[b], 88 * scale, measure) / scale for b in (0, 2, 3)]
        for bands in images
    ]
    return np.median(np.hypot(*np.concatenate(shifts, 1).T), 0)


@pytest.mark.parametrize("measure", MEASURES)
def test_real_crops_are_registered(crops, registered, measure):
    assert np.all(misalignment(crops, 1, measure) > 0.6)
    # asked for: 0.1, 0.1, 0.35
    for scale, most in ((1, (0.05, 0.05, 0.25)), (2, (0.07, 0.07, 0.25))):
        found = misalignment(registered[scale], scale, measure)
        assert np.all(found <= most), f"x{scale}: {found}"


def test_known_flow_is_found(acquisition, stack_of):
    flow = register_bands(stack_of(acquisition.pixels)).read(Window(0, 0, 320, 352))
    error = np.hypot(*(flow - acquisition.flow).transpose(1, 0, 2, 3))
    assert np.all(np.median(error, (1, 2)) <= (0.03, 0.0, 0.03, 0.1))
    assert np.all(error.max((1, 2)) <= (0.2, 0.0, 0.2, 0.5))


def test_stretches_join_and_little_is_read_at_a_time(acquisition, stack_of):
    stack, read = stack_of(acquisition.pixels), []

    @dataclass(frozen=True)
    class Counting:
        source: object
        shape = (352, 320)
        dtype = np.dtype("uint16")

        def read(self, window):
            read.append(window.height)
            return self.source.read(window)

    stack = replace(stack, sources={b: Counting(s) for b, s in stack.sources.items()})
    flow = register_bands(stack, lines=112).read(Window(0, 0, 320, 352))
    assert len(read) == 4 * 3  # every band once for every stretch
    assert max(read) <= 128 + 2 * (12 + 8)
    error = np.hypot(*(flow - acquisition.flow).transpose(1, 0, 2, 3))
    assert np.all(np.median(error, (1, 2)) <= (0.05, 0.0, 0.05, 0.1))
    assert np.all(error.max((1, 2)) <= (0.2, 0.0, 0.2, 0.6))


@pytest.mark.parametrize(
    ("dtype", "scale", "offset"),
    [("uint8", 0.3, 0.0), ("int16", 1.0, 1000.0), ("float32", 1e-4, 0.0)],
)
def test_units_do_not_matter(acquisition, stack_of, dtype, scale, offset):
    pixels = (acquisition.pixels[:, :160, :160] * scale - offset).astype(dtype)
    stack = stack_of(pixels, add_offset=dict.fromkeys(("B02", "B03", "B04", "B08"), offset))
    flow = register_bands(stack).read(Window(0, 0, 160, 160))
    error = np.hypot(*(flow - acquisition.flow[..., :160, :160]).transpose(1, 0, 2, 3))
    assert np.all(np.median(error, (1, 2)) <= (0.1, 0.0, 0.1, 0.5))


def test_water_and_nodata_leave_a_smooth_field(acquisition, stack_of):
    pixels = acquisition.pixels.copy()
    sea = np.s_[:, 120:250, 60:200]
    pixels[sea] = np.random.default_rng(0).normal(200, 1.5, pixels[sea].shape)
    pixels[:, :, 250:] = 0
    flow = register_bands(stack_of(pixels, nodata=0)).read(Window(0, 0, 320, 352))
    error = np.hypot(*(flow - acquisition.flow).transpose(1, 0, 2, 3))
    assert np.all(np.median(error[:, 120:250, 60:200], (1, 2)) <= (0.1, 0.0, 0.1, 0.4))
    assert np.all(error.max((1, 2)) <= (0.5, 0.0, 0.5, 1.2))
    bend = np.abs(np.diff(flow, 2, axis=-1)).max(), np.abs(np.diff(flow, 2, axis=-2)).max()
    assert max(bend) < 0.02


def test_a_cloud_does_not_lead_the_ground(acquisition, stack_of):
    """Clouds have a parallax of their own, 2 px here."""
    pixels = acquisition.pixels.copy()
    rng = np.random.default_rng(3)
    cloud = 1500 + 200 * ndimage.gaussian_filter(rng.standard_normal((352, 320)), 2) * 10
    y, x = np.mgrid[:352, :320]
    for band, flow in enumerate(acquisition.flow):
        extra = (-2.0, 0.0, 2.0, -1.0)[band]
        dx, dy = flow[0, 176, 160], flow[1, 176, 160] + extra
        moved = ndimage.shift(cloud, (dy, dx), order=3, mode="nearest")
        inside = np.hypot(y - 170 - dy, x - 160 - dx) < 60
        pixels[band][inside] = moved[inside]
    flow = register_bands(stack_of(pixels)).read(Window(0, 0, 320, 352))
    error = np.hypot(*(flow - acquisition.flow).transpose(1, 0, 2, 3))
    assert np.all(np.median(error, (1, 2)) <= (0.05, 0.0, 0.05, 0.25))
    assert np.all(error.max((1, 2)) <= (0.3, 0.0, 0.3, 1.0))


NOTHING = {
    "constant": np.full((4, 200, 200), 300, np.uint16),
    "nodata": np.zeros((4, 120, 300), np.uint16),
    "nan": np.full((4, 100, 100), np.nan, np.float32),
    "noise": np.random.default_rng(0).integers(100, 130, (4, 300, 700)).astype(np.uint16),
    "one pixel": np.full((4, 1, 1), 7, np.uint16),
    "one line": np.random.default_rng(0).integers(100, 130, (4, 1, 400)).astype(np.uint16),
    "noise of 40 px": np.random.default_rng(0).integers(100, 130, (4, 40, 40)).astype(np.uint16),
}


@pytest.mark.parametrize("name", NOTHING)
@pytest.mark.parametrize("with_prior", [False, True])
def test_nothing_to_match_keeps_the_prior_and_says_so(stack_of, name, with_prior):
    pixels = NOTHING[name]
    shape = pixels.shape[1:]
    prior = None
    if with_prior:
        nodes = (
            np.random.default_rng(5).normal(0, 2, (4, 2, 1 + -(-shape[0] // 16), 1)).astype("f4")
        )
        nodes[1] = 0
        prior = FlowField(np.repeat(nodes, 1 + -(-shape[1] // 16), -1), 16.0)
    with pytest.warns(L1bsrGeoWarning) as caught:
        flow = register_bands(stack_of(pixels, nodata=0), prior=prior)
    messages = [str(w.message) for w in caught]
    assert [m.split()[1] for m in messages] == ["B02", "B04", "B08"]
    assert all(("prior" in m) == with_prior for m in messages)
    window = Window(0, 0, shape[1], shape[0])
    expected = prior.read(window) if prior else np.zeros((4, 2, *shape))
    np.testing.assert_allclose(flow.read(window), expected, atol=1e-5)


@pytest.mark.parametrize("size", [40, 64, 100])
def test_small_crops_are_matched(acquisition, stack_of, size):
    crop = np.s_[..., 150 : 150 + size, 150 : 150 + size]
    prior = FlowField(np.zeros((4, 2, 2, 2), np.float32), 200.0)
    truth = acquisition.flow[crop]
    # the truth in whole pixels is taken away: a small crop sees no displacement of its own size
    whole = np.rint(truth.mean((-2, -1))).astype(int)
    pixels = np.stack(
        [
            np.roll(p, (-dy, -dx), (0, 1))[crop]
            for p, (dx, dy) in zip(acquisition.pixels, whole, strict=True)
        ]
    )
    flow = register_bands(stack_of(pixels), prior=prior).read(Window(0, 0, size, size))
    error = np.hypot(*(flow - (truth - whole[..., None, None])).transpose(1, 0, 2, 3))
    assert np.all(np.median(error, (1, 2))[:3] <= (0.15, 0.0, 0.15))


# --- geometry -------------------------------------------------------------------------------------


def shifted_grids(shape, shifts):
    model = AffineModel(Affine(10, 0, 500000, 0, -10, 4000000), "EPSG:32633")
    return {
        b: GeoGrid(shape, model, Affine.translation(-dx, -dy))
        for b, (dx, dy) in zip(("B02", "B03", "B04", "B08"), shifts, strict=True)
    }


def test_geometric_flow_is_where_the_other_band_sees_the_same_ground(stack_of):
    shifts = [(3.25, -2.5), (0.0, 0.0), (-7.0, 11.0), (0.125, 0.25)]
    stack = stack_of(np.zeros((4, 50, 70)), shifted_grids((50, 70), shifts))
    field = geometric_flow(stack, step=16)
    assert field.nodes.shape == (4, 2, 5, 6)
    flow = field.read(Window(0, 0, 70, 50))
    np.testing.assert_allclose(
        flow, np.broadcast_to(np.array(shifts)[..., None, None], flow.shape), atol=1e-4
    )


def test_images_correct_the_geometry(acquisition, stack_of):
    wrong = np.array([(1.5, -1.0), (0, 0), (-1.0, 1.5), (1.0, 1.0)])
    middle = acquisition.flow.mean((2, 3)) + wrong
    stack = stack_of(acquisition.pixels, shifted_grids((352, 320), middle))
    flow = register_bands(stack).read(Window(0, 0, 320, 352))
    error = np.hypot(*(flow - acquisition.flow).transpose(1, 0, 2, 3))
    assert np.all(np.median(error, (1, 2)) <= (0.03, 0.0, 0.03, 0.1))


def test_one_map_grid_for_all_bands_does_not_narrow_the_search(acquisition, stack_of):
    stack = stack_of(acquisition.pixels, shifted_grids((352, 320), [(0, 0)] * 4))
    flow = register_bands(stack).read(Window(0, 0, 320, 352))
    error = np.hypot(*(flow - acquisition.flow).transpose(1, 0, 2, 3))
    assert np.all(np.median(error, (1, 2)) <= (0.03, 0.0, 0.03, 0.1))


def test_geometry_is_asked_for_but_absent(stack_of):
    with pytest.raises(BadInputError, match="no geometry"):
        geometric_flow(stack_of(np.zeros((4, 20, 20))))


def test_bands_of_different_sizes_are_refused(stack_of):
    pixels = [np.zeros((20, 20)), np.zeros((20, 20)), np.zeros((20, 20)), np.zeros((10, 10))]
    with pytest.raises(BadInputError, match=r"B08 .*10, 10.*B03 .*20, 20"):
        register_bands(stack_of(pixels))


def test_a_prior_of_other_bands_is_refused(stack_of):
    prior = FlowField(np.zeros((3, 2, 2, 2), np.float32), 50.0)
    with pytest.raises(BadInputError, match=r"3 bands and the stack 4"):
        register_bands(stack_of(np.zeros((4, 40, 40))), prior=prior)


@pytest.mark.parametrize("option", [{"search": 0}, {"search": 16}, {"lines": 10}])
def test_impossible_options_are_refused(stack_of, option):
    with pytest.raises(BadOptionError, match=next(iter(option))):
        register_bands(stack_of(np.zeros((4, 40, 40))), **option)
