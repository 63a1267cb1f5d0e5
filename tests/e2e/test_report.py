"""The page of a result in a real browser, and figures at the command line."""

import importlib.util
import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from typer.testing import CliRunner

from l1bsr_geo.cli.main import app
from l1bsr_geo.errors import BadOptionError, L1bsrGeoWarning, OutputExistsError
from l1bsr_geo.pipelines.evaluating import evaluate
from l1bsr_geo.pipelines.super_resolution import super_resolve
from l1bsr_geo.simulation.fine_scenes import made_city
from l1bsr_geo.simulation.scenes import MapScene, procedural_scene
from l1bsr_geo.simulation.skysat_collect import write_skysat_collect

CRS = "EPSG:32631"
_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_QUIET = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A map of 10 m, super-resolved with a report; folder with in.tif, out.tif, out.html."""
    folder = tmp_path_factory.mktemp("report")
    scene = procedural_scene((500_000, 5_000_000, 502_000, 5_001_800), CRS, seed=5, pixel=10)
    dn = np.rint(scene.seen_by().pixels).astype(np.uint16)
    count, height, width = dn.shape
    size = {"width": width, "height": height, "count": count, "dtype": dn.dtype}
    with rasterio.open(
        folder / "in.tif", "w", driver="GTiff", crs=CRS, transform=scene.transform, **size
    ) as file:
        file.write(dn)
        file.descriptions = scene.bands
    page = folder / "out.html"
    super_resolve(folder / "in.tif", folder / "out.tif", model="geometric", tile=60, report=page)
    return folder


@pytest.fixture(scope="module")
def browser():
    """Chromium, driven by playwright; skips where either is missing."""
    program = next(filter(None, map(shutil.which, _BROWSERS)), None)
    if program is None:
        pytest.skip("no browser: install chromium (apt-get install chromium) to look at the page")
    if importlib.util.find_spec("playwright") is None:
        pytest.skip("no playwright: pip install '.[test]'")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=program, args=list(_QUIET))
        yield started
        started.close()


@pytest.fixture
def page(browser, made):
    """The report, opened; what it asks for and complains about is kept."""
    opened = browser.new_page(viewport={"width": 1200, "height": 900})
    opened.asked, opened.said = [], []
    opened.on("request", lambda r: opened.asked.append(r.url))
    opened.on("console", lambda m: opened.said.append(m.text))
    opened.on("pageerror", lambda e: opened.said.append(str(e)))
    opened.goto((made / "out.html").as_uri())
    yield opened
    opened.close()


def test_it_needs_nothing_else_and_says_what_there_is(page, made):
    assert [url for url in page.asked if not url.startswith("data:")] == [
        (made / "out.html").as_uri()
    ]
    assert page.said == []
    assert page.title() == "out.tif"
    heads = page.locator("h2").all_inner_texts()
    for head in ("Before and after", "Consistency with the input", "Band registration", "Place"):
        assert head in heads
    assert page.locator("svg.plot polyline").count() == 3
    assert page.locator("svg.plot line.v").count() > 10
    table = page.locator("section", has_text="Consistency with the input").locator("tbody tr")
    assert table.count() == 4
    assert "No alarm" in page.locator(".badge").inner_text()
    assert "EPSG:32631" in page.locator("dl.facts").all_inner_texts()[1]
    assert "geometric" in page.locator("dl.facts").all_inner_texts()[2]
    sizes = page.locator(".slider img").evaluate_all("all => all.map(i => i.naturalWidth)")
    assert len(sizes) >= 2
    assert set(sizes) == {288}
    assert (made / "out.html").stat().st_size < 5e6


def test_the_line_moves_by_mouse_and_by_keyboard(page):
    slider = page.locator(".slider").first
    slider.scroll_into_view_if_needed()

    def seen():
        """Where the result begins to cover the input, as a share of the width."""
        text = slider.locator(".after").evaluate("i => getComputedStyle(i).clipPath")
        return float(text.split("%")[0].split()[-1]) / 100

    assert seen() == pytest.approx(0.5)
    box = slider.bounding_box()
    x, y = box["x"], box["y"] + box["height"] / 2
    page.mouse.move(x + box["width"] / 2, y)
    page.mouse.down()
    page.mouse.move(x + 0.8 * box["width"], y, steps=4)
    page.mouse.up()
    assert seen() == pytest.approx(0.8, abs=0.03)
    at = seen()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    assert seen() == pytest.approx(at - 0.02, abs=1e-6)
    page.keyboard.press("Home")
    assert seen() == 0
    spoken = slider.locator("input").get_attribute("aria-valuetext")
    assert spoken == "0 % before, 100 % after"
    page.keyboard.press("Tab")
    assert slider.locator("input").evaluate("i => i !== document.activeElement")


def test_before_and_after_show_the_same_ground(page):
    """Both pictures of a crop, made small, are nearly the same: no shift, no other colours."""
    apart = page.locator(".slider").first.evaluate(
        """s => {
            const [a, b] = [...s.querySelectorAll("img")].map(image => {
                const c = document.createElement("canvas");
                c.width = c.height = 36;
                const d = c.getContext("2d");
                d.drawImage(image, 0, 0, 36, 36);
                return d.getImageData(0, 0, 36, 36).data;
            });
            const mean = a.reduce((x, y) => x + y) / a.length;
            let apart = 0, spread = 0;
            a.forEach((v, i) => { apart += (v - b[i]) ** 2; spread += (v - mean) ** 2; });
            return Math.sqrt(apart / spread);
        }"""
    )
    assert apart < 0.15


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_and_can_be_read_in_the_dark(page, tmp_path, scheme):
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    ink, paper = page.locator("body").evaluate(
        """b => { const s = getComputedStyle(b); return [s.color, s.backgroundColor].map(
            c => c.match(/[0-9.]+/g).slice(0, 3).reduce((a, v) => a + Number(v), 0) / 765) }"""
    )
    assert (ink < 0.2 < 0.8 < paper) if scheme == "light" else (paper < 0.2 < 0.8 < ink)
    shot = tmp_path / "phone.png"
    page.screenshot(path=shot, full_page=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(shot) as picture:
            pixels = picture.read([1, 2, 3])
    assert pixels.shape[2] == 360
    assert pixels.shape[1] > 2000
    assert pixels.std() > 20  # it is drawn


def test_it_can_be_printed(page, tmp_path):
    page.pdf(path=tmp_path / "page.pdf", format="A4")
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")


def test_the_command_line(made, cli, tmp_path):
    result, source = made / "out.tif", made / "in.tif"
    page = tmp_path / "page.html"
    options = ("--source", source, "--reference", result, "--windows", "2", "--report", page)
    shown = cli("evaluate", result, *options)
    assert shown.returncode == 0, shown.stderr
    assert "inf" in shown.stdout  # the PSNR of a file and itself
    assert "no alarm" in shown.stdout
    assert "Against a reference" in page.read_text("utf-8")


def test_json(made):
    told = CliRunner().invoke(
        app, ["evaluate", str(made / "out.tif"), "--source", str(made / "in.tif"), "--json"]
    )
    assert told.exit_code == 0, told.output
    found = json.loads(told.stdout)
    assert found["alarms"] == []
    bands = found["quality"]["consistency"]["bands"]
    assert [b["band"] for b in bands] == ["B02", "B03", "B04", "B08"]
    assert max(b["rmse"] for b in bands) < 2
    assert found["quality"]["seams"]["segments"] > 5
    assert found["reference"] is None


def test_what_is_refused_before_anything_is_computed(made, tmp_path):
    source, result = made / "in.tif", made / "out.tif"
    with pytest.raises(OutputExistsError, match=r"out\.html"):
        super_resolve(source, tmp_path / "a.tif", report=made / "out.html")
    with pytest.raises(BadOptionError, match="another output"):
        super_resolve(source, tmp_path / "a.tif", report=tmp_path / "a.tif")
    with pytest.raises(BadOptionError, match="give --source, --reference"):
        evaluate(result)
    with pytest.raises(BadOptionError, match="give --source"):
        evaluate(result, reference=source, report=tmp_path / "a.html")
    with pytest.raises(BadOptionError, match=r"--mtf 1\.5"):
        evaluate(result, source=source, mtf=1.5)
    assert list(tmp_path.iterdir()) == []


def test_names_are_text(made, tmp_path):
    """What a file is called, and what its tags tell, is never markup."""
    result = tmp_path / "<img src=x onerror=alert(1)>.tif"
    shutil.copy(made / "out.tif", result)
    with rasterio.open(result, "r+", IGNORE_COG_LAYOUT_BREAK="YES") as file:
        file.update_tags(model="</script><script>alert(2)</script>")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", L1bsrGeoWarning)
        evaluate(result, source=made / "in.tif", windows=1, report=tmp_path / "page.html")
    text = Path(tmp_path / "page.html").read_text("utf-8")
    assert "<img src=x" not in text
    assert text.count("<script>") == 1


def test_a_burst_is_judged_by_its_reference_frame(tmp_path):
    """On a map, through the RPC of the frame that the tags name."""
    scene = MapScene(
        made_city((700, 700), seed=1)[None],
        Affine(0.5, 0, 500_000, 0, -0.5, 4_500_000),
        CRS,
        ("PAN",),
    )
    made = write_skysat_collect(tmp_path / "burst", scene, frames=3, shape=(160, 160))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", L1bsrGeoWarning)  # no DEM
        result = super_resolve(made.folder, tmp_path / "out.tif", model="act", frames=3)
    (found,) = evaluate(result, source=made.folder, windows=2).quality.consistency.bands
    assert np.hypot(*found.shift) < 0.05
    assert abs(found.bias_percent) < 0.5
    assert found.correlation > 0.99


def test_a_detector_is_judged_through_its_instrument(demo, tmp_path):
    """The bands' motion, the terrain and the tiles come from the tags; a DEM must be given."""
    west, south, east, north = demo.lonlat
    lon, lat = (west + east) / 2, (south + north) / 2
    area = (lon - 0.012, lat - 0.01, lon + 0.012, lat + 0.01)
    options = {"dem": demo.dem, "aoi": area, "model": "geometric", "tile": 96}
    result = super_resolve(demo.product, tmp_path / "out.tif", **options)
    with pytest.raises(BadOptionError, match="terrain of demo_dem"):
        evaluate(result, source=demo.product)
    found = evaluate(result, source=demo.product, dem=demo.dem, windows=3)
    assert found.alarms == ()
    for band in found.quality.consistency.bands:
        assert np.hypot(*band.shift) < 0.03
        assert abs(band.bias_percent) < 0.05
    assert min(b.median_before for b in found.quality.band_shifts) > 0.5
    assert found.quality.seams.segments > 3
