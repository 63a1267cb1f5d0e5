"""`l1bsr-geo denoise`: real files of every kind in, the same kind out."""

import json
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rioxarray  # noqa: F401
import torch
import xarray as xr
from affine import Affine
from scipy.ndimage import gaussian_filter

import l1bsr_geo
from l1bsr_geo.cli.main import main
from l1bsr_geo.errors import BadInputError, BadOptionError, OutputExistsError
from l1bsr_geo.models.dncnn import DnCNN
from l1bsr_geo.models.fastdvdnet import FastDVDnet
from l1bsr_geo.ops.mosaic import demosaick_bilinear
from l1bsr_geo.pipelines.denoise_job import DenoiseJob
from l1bsr_geo.pipelines.denoising import run_denoising
from l1bsr_geo.readers.skysat import read_burst
from l1bsr_geo.readers.videos import read_video
from l1bsr_geo.simulation.mosaics import simulate_mosaics
from l1bsr_geo.simulation.skysat_collect import scene_on_map, write_skysat_collect
from l1bsr_geo.training.checkpoints import write_weights
from tests.synthetic.video_files import write_raster, write_video

UTM = {"crs": "EPSG:32631", "transform": Affine(10, 0, 500000, 0, -10, 4500000)}
SHAPE = (48, 64)


def make_clip(count: int, bands: int = 3, seed: int = 0) -> np.ndarray:
    """Smooth shapes that move a pixel a frame, 20 to 220 DN: (T, C, H, W)."""
    rng = np.random.default_rng(seed)
    wide = [gaussian_filter(rng.standard_normal((SHAPE[0], SHAPE[1] + count)), 5) for _ in "abc"]
    scene = np.stack([20 + 200 * (w - w.min()) / np.ptp(w) for w in wide])[:bands]
    return np.stack([scene[:, :, t : t + SHAPE[1]] for t in range(count)])


def make_scene(side: int) -> np.ndarray:
    """Edges that all colours share, as in the world: (3, side, side) [DN]."""
    white = np.random.default_rng(7).standard_normal((4, side, side))
    light = 60 + 120 * (gaussian_filter(white[3], 6) > 0) + 90 * gaussian_filter(white[3], 2)
    return (light * (1 + 3 * gaussian_filter(white[:3], (0, 12, 12)))).astype(np.float32)


def add_noise(clip: np.ndarray, sigma: float = 12) -> np.ndarray:
    noisy = clip + np.random.default_rng(9).normal(0, sigma, clip.shape)
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)


def averaging(channels: int) -> DnCNN:
    """A DnCNN that takes a pixel's difference to the mean of 3 x 3 px for noise."""
    network = DnCNN(channels=channels, depth=2, width=9 * channels, name=name_of("dncnn", channels))
    first, last = network.dncnn[0].weight, network.dncnn[2].weight
    with torch.no_grad():
        first.zero_(), last.zero_()
        for c in range(channels):
            for k in range(9):
                first[9 * c + k, c, k // 3, k % 3] = 1
                last[c, 9 * c + k, 1, 1] = (8 if k == 4 else -1) / 9
    return network.eval()


def unchanging(channels: int) -> FastDVDnet:
    """A FastDVDnet that gives the middle frame as it is, until it learns."""
    torch.manual_seed(0)
    network = FastDVDnet(channels=channels, width=8, name=name_of("fastdvdnet", channels))
    for stage in (network.temp1, network.temp2):
        torch.nn.init.zeros_(stage.outc.convblock[-1].weight)
    return network.eval()


def name_of(name: str, channels: int) -> str:
    return name if channels == 3 else f"{name}-pan"


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> dict[str, Path]:
    """Weights of the averaging network, as the command line takes them."""
    folder = tmp_path_factory.mktemp("weights")
    found = {}
    for channels in (1, 3):
        network = averaging(channels)
        name = network.spec.name
        told = {"channels": channels, "depth": 2, "width": 9 * channels}
        facts = {"model": name, "scale": "1", "network": json.dumps(told)}
        found[name] = folder / f"{name}.safetensors"
        write_weights(found[name], network, facts)
    return found


def psnr(frames: np.ndarray, truth: np.ndarray) -> float:
    """Inside of the border, which the network's zeros beyond it darken."""
    error = (frames.astype(float) - truth)[..., 2:-2, 2:-2]
    return 10 * np.log10(255**2 / np.mean(error**2))


def read_all(path: Path) -> np.ndarray:
    video = read_video(path)
    return np.stack([video.read(t) for t in range(video.frames)])


@pytest.mark.parametrize(("ending", "codec"), [(".mkv", "ffv1"), (".mp4", "libx264")])
def test_a_video_file_comes_out_as_one(tmp_path, weights, ending, codec):
    clip = make_clip(7)
    source, out = tmp_path / f"in{ending}", tmp_path / f"out{ending}"
    options = {"crf": "1"} if ending == ".mp4" else {}
    write_video(source, add_noise(clip), codec, "yuv444p" if options else "bgr0", **options)
    done = run_denoising(
        DenoiseJob(source=source, output=out, method="dncnn", weights=weights["dncnn"])
    )
    before, after = read_video(source), read_video(out)
    assert done.result == out
    assert (after.frames, after.shape, after.rate) == (7, SHAPE, before.rate)
    assert psnr(read_all(out), clip) > psnr(read_all(source), clip) + 4
    assert 0.8 * 12 < done.noise.deviation(120) < 1.1 * 12
    assert {p.name for p in tmp_path.iterdir()} == {source.name, out.name}


def test_the_command_line_says_noise_and_psnr(tmp_path, weights, capsys, monkeypatch):
    clip = make_clip(6)
    write_video(tmp_path / "in.mkv", add_noise(clip), "ffv1", "bgr0")
    write_video(tmp_path / "truth.mkv", clip.round().astype(np.uint8), "ffv1", "bgr0")
    words = ["denoise", tmp_path / "in.mkv", tmp_path / "frames", "--method", "dncnn"]
    words += ["--weights", weights["dncnn"], "--truth", tmp_path / "truth.mkv", "--frames", "1:5"]
    monkeypatch.setattr(sys, "argv", ["l1bsr-geo", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == str(tmp_path / "frames")
    assert said[1].startswith("noise of single frames: variance = ")
    assert said[2].startswith("noise that was taken off: variance = ")
    after, before = (float(said[3].split()[k]) for k in (1, 6))
    noisy, restored = (
        np.mean(
            [10 * np.log10(255**2 / np.mean((a - b) ** 2)) for a, b in zip(v, clean, strict=True)]
        )
        for clean in [clip[1:5].round()]
        for v in (add_noise(clip)[1:5].astype(float), read_all(tmp_path / "frames"))
    )
    assert before == pytest.approx(noisy, abs=0.01)
    assert after == pytest.approx(restored, abs=0.05)
    files = sorted(p.name for p in (tmp_path / "frames").iterdir())
    assert files == [f"frame{t:06d}.png" for t in range(4)]
    assert (
        psnr(read_all(tmp_path / "frames"), clip[1:5]) > psnr(add_noise(clip)[1:5], clip[1:5]) + 4
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["no.mp4", "out.mp4"], "no.mp4 is not there"),
        (["in.mkv", "out.mkv", "--noise", "much"], "--noise much"),
        (["in.mkv", "out.mkv", "--frames", "a:b"], "--frames a:b"),
        (["in.mkv", "out.mkv", "--frames", "50:"], "frames 0 to 2"),
        (["in.mkv", "out.wmv"], "such a video file is not written"),
        (["in.mkv", "in.mkv", "--overwrite"], "is an input, too"),
        (["in.mkv", "out.mkv", "--method", "dncnn", "--mode", "online"], "--mode online"),
    ],
)
def test_a_mistake_is_one_line_and_exit_2(tmp_path, words, said, capsys, monkeypatch):
    write_video(tmp_path / "in.mkv", add_noise(make_clip(3)), "ffv1", "bgr0")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["l1bsr-geo", "denoise", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    error = capsys.readouterr().err.strip()
    assert said in error
    assert "\n" not in error
    assert [p.name for p in tmp_path.iterdir()] == ["in.mkv"]


def test_a_folder_of_png_comes_out_as_one_with_its_alpha(tmp_path):
    clip = make_clip(5)
    noisy = add_noise(clip)
    source = tmp_path / "in"
    source.mkdir()
    alpha = np.full((5, 1, *SHAPE), 255, np.uint8)
    alpha[:, :, :9, :9] = 0
    for t in range(5):
        write_raster(source / f"f{t}.png", np.concatenate([noisy[t], alpha[t]]), driver="PNG")
    out = tmp_path / "out"
    l1bsr_geo.denoise(source, out, method="dncnn", network=averaging(3))
    assert sorted(p.name for p in out.iterdir()) == [f"f{t}.png" for t in range(5)]
    with warnings.catch_warnings(action="ignore"), rasterio.open(out / "f3.png") as file:
        assert (file.count, file.dtypes[0]) == (4, "uint8")
        np.testing.assert_array_equal(file.read(4), alpha[3, 0])
    restored = read_all(out)
    np.testing.assert_array_equal(np.isnan(restored[:, 0]), alpha[:, 0] == 0)
    kept = np.s_[:, :, 12:, 12:]
    assert psnr(restored[kept], clip[kept]) > psnr(noisy[kept], clip[kept]) + 4
    with pytest.raises(OutputExistsError, match="add --overwrite"):
        l1bsr_geo.denoise(source, out, method="dncnn", network=averaging(3))
    (out / "mine.txt").write_text("precious")
    with pytest.raises(BadOptionError, match=r"holds mine\.txt"):
        l1bsr_geo.denoise(source, out, method="dncnn", network=averaging(3), overwrite=True)


def test_a_stack_of_times_keeps_map_tags_and_nodata(tmp_path):
    clip = 16 * make_clip(5, 2)  # 12 bits, two bands to a time
    noisy = np.clip(clip + np.random.default_rng(1).normal(0, 200, clip.shape), 0, 4000)
    noisy = noisy.round().astype(np.uint16)
    noisy[:, :, 20:26, 30:40] = 9999
    source, out = tmp_path / "in.tif", tmp_path / "out.tif"
    options = {"nodata": 9999, "compress": "lzw", **UTM}
    write_raster(source, noisy.reshape(10, *SHAPE), **options)
    with rasterio.open(source, "r+") as file:
        file.update_tags(MISSION="test")
        file.set_band_description(3, "red of the second")
    l1bsr_geo.denoise(source, out, method="dncnn", bands_per_frame=2, network=averaging(1))
    with rasterio.open(out) as file:
        assert (file.count, file.dtypes[0], file.nodata) == (10, "uint16", 9999)
        assert (file.crs, file.transform) == (rasterio.CRS.from_epsg(32631), UTM["transform"])
        assert (file.tags()["MISSION"], file.tags()["denoise_method"]) == ("test", "dncnn")
        assert file.descriptions[2] == "red of the second"
        assert file.profile["compress"] == "lzw"
        restored = file.read().reshape(noisy.shape)
    np.testing.assert_array_equal(restored == 9999, noisy == 9999)
    kept = np.s_[:, :, :16]
    gain = psnr(restored[kept] / 16, clip[kept] / 16) - psnr(noisy[kept] / 16, clip[kept] / 16)
    assert gain > 4


def test_every_frame_of_a_skysat_burst_comes_back_with_its_rpc(tmp_path):
    scene = scene_on_map(make_clip(1, 1)[0, 0].repeat(4, 0).repeat(4, 1)[:190, :230])
    collect = write_skysat_collect(
        tmp_path / "in", scene, frames=5, shape=(40, 56), geometry=("tags", "pinhole")
    )
    out = tmp_path / "out"
    l1bsr_geo.denoise(collect.folder, out, method="dncnn", network=averaging(1))
    for name in collect.names:
        with (
            warnings.catch_warnings(action="ignore"),
            rasterio.open(collect.folder / f"{name}.tif") as before,
            rasterio.open(out / f"{name}.tif") as after,
        ):
            assert after.dtypes == before.dtypes
            assert after.rpcs.to_dict() == before.rpcs.to_dict()
            assert not np.array_equal(after.read(), before.read())
    burst = read_burst(out)
    assert len(burst) == 5
    assert burst.attrs["exposures"] == "integration_time_ms"
    assert (out / f"{collect.names[0]}_pinhole.json").is_file()


def test_an_array_comes_back_as_it_was(tmp_path):
    clip = make_clip(6)
    array = xr.DataArray(
        add_noise(clip),
        dims=("time", "band", "y", "x"),
        coords={"time": np.arange(6) * 10, "band": ["B04", "B03", "B02"]},
        attrs={"units": "DN"},
        name="clip",
    )
    array = array.rio.write_crs(UTM["crs"]).rio.write_transform(UTM["transform"])
    restored = l1bsr_geo.denoise(array, method="dncnn", network=averaging(3), frames=slice(1, 5))
    assert psnr(restored.values, clip[1:5]) > psnr(array.values[1:5], clip[1:5]) + 4
    xr.testing.assert_identical(restored.copy(data=array[1:5].data), array[1:5])
    one = l1bsr_geo.denoise(array[:, 0], method="dncnn", network=averaging(1))
    assert one.dims == ("time", "y", "x")
    out = l1bsr_geo.denoise(array, tmp_path / "a.tif", method="dncnn", network=averaging(3))
    with rasterio.open(out) as file:
        assert (file.count, file.crs.to_epsg(), file.transform) == (18, 32631, UTM["transform"])


@pytest.mark.parametrize("mode", ["online", "offline"])
@pytest.mark.parametrize("teacher", [False, True])
def test_mf2f_learns_from_the_video(mode, teacher):
    clip = make_clip(10, 1)[:, 0, :32, :40]
    array = xr.DataArray(add_noise(clip).astype(np.float32), dims=("time", "y", "x"))
    told = []
    job = DenoiseJob(
        source=array, mode=mode, teacher=teacher, network=unchanging(1), iterations=2, crop=32
    )
    done = run_denoising(job, lambda *what: told.append(what))
    assert (done.result.shape, done.result.dtype) == (array.shape, np.float32)
    assert 0 < np.abs(done.result - array).mean() < 12
    assert any(doing == "learning" and "loss" in figures for doing, _, _, figures in told)
    assert [what[1] for what in told if what[0] == "restoring"] == list(range(1, 11))


@pytest.mark.parametrize(
    ("method", "network"), [("f2f", averaging), ("n2n", averaging), ("fastdvdnet", unchanging)]
)
def test_the_other_methods_run(method, network):
    array = xr.DataArray(add_noise(make_clip(6, 1))[:, 0], dims=("time", "y", "x"))
    done = run_denoising(DenoiseJob(source=array, method=method, network=network(1), iterations=2))
    assert done.result.shape == array.shape
    assert (done.told is not None) == (method == "fastdvdnet")


def test_raw_mosaics_come_out_in_colours(tmp_path, monkeypatch, capsys):
    burst = simulate_mosaics(make_scene(144), (112, 112), 4, pattern="gbrg", seed=2)
    (tmp_path / "raw").mkdir()
    for t, frame in enumerate(np.clip(np.rint(burst.frames), 0, 255).astype(np.uint8)):
        write_raster(tmp_path / "raw" / f"{t:03d}.tif", frame[None])
    words = ["denoise", str(tmp_path / "raw"), str(tmp_path / "out"), "--method", "m2m"]
    words += ["--pattern", "gbrg", "--iterations", "2", "--crop", "32", "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", ["l1bsr-geo", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    found = []
    for line in capsys.readouterr().out.splitlines()[1:]:  # variance = a x + b
        a, b = (float(part.split()[0]) for part in line.split("= ")[1].split("x + "))
        found.append(a * 120 + b)
    assert len(found) == 2
    assert found[0] == pytest.approx(100, rel=0.2)  # of the frames
    assert 0 < found[1] < 110  # taken off by a network of 3 DN that has hardly learnt
    after = read_all(tmp_path / "out")
    plain = demosaick_bilinear(torch.from_numpy(burst.frames[:, None]), "gbrg").numpy()
    assert after.shape == (4, 3, 112, 112)
    assert psnr(after, burst.truth) > psnr(plain, burst.truth) + 1


def test_stacks_do_not_cross_cuts_and_short_videos_are_refused(tmp_path):
    frames = np.concatenate([make_clip(9, 1), make_clip(10, 1, seed=5)])
    array = xr.DataArray(add_noise(frames, 5)[:, 0], dims=("time", "y", "x"))
    done = run_denoising(DenoiseJob(source=array, method="fastdvdnet", network=unchanging(1)))
    assert done.shots == (range(9), range(9, 19))
    with pytest.raises(BadInputError, match="8 frames; mf2f needs 9"):
        l1bsr_geo.denoise(array[:8], network=unchanging(1))
    with pytest.raises(BadInputError, match="4 frames; fastdvdnet needs 5"):
        l1bsr_geo.denoise(array[:4], method="fastdvdnet", network=unchanging(1))
    gone = array.astype(np.float32)
    gone[3] = np.nan
    with pytest.raises(BadInputError, match="frame 3 of 19 has no data at all"):
        l1bsr_geo.denoise(gone, method="fastdvdnet", network=unchanging(1))


KILLED = """
import os, sys
from l1bsr_geo.pipelines.denoise_output import Target
keep = Target.keep
def kill(self, folder, t, frame):
    keep(self, folder, t, frame)
    if t == 5:
        os._exit(9)  # as a computer that loses its power
Target.keep = kill
sys.argv = ["l1bsr-geo", *sys.argv[1:]]
from l1bsr_geo.cli.main import main
main()
"""


def test_a_killed_run_leaves_nothing_half_written_and_is_gone_on_with(tmp_path, weights):
    write_raster(tmp_path / "in.tif", add_noise(make_clip(9, 1))[:, 0])
    words = ["denoise", "in.tif", "out.tif", "--method", "n2n", "--iterations", "2"]
    words += ["--weights", str(weights["dncnn-pan"]), "--device", "cpu", "--resume"]
    killed = subprocess.run([sys.executable, "-c", KILLED, *words], cwd=tmp_path, check=False)
    assert killed.returncode == 9
    assert not (tmp_path / "out.tif").exists()
    assert (tmp_path / ".out.tif.parts").is_dir()
    job = {"source": tmp_path / "in.tif", "method": "n2n", "iterations": 2, "device": "cpu"}
    job["weights"] = weights["dncnn-pan"]
    with pytest.raises(BadOptionError, match="seed was 0 and is 1"):
        l1bsr_geo.denoise(output=tmp_path / "out.tif", resume=True, seed=1, **job)
    done = l1bsr_geo.denoise(output=tmp_path / "out.tif", resume=True, **job)
    assert not (tmp_path / ".out.tif.parts").exists()
    again = l1bsr_geo.denoise(output=tmp_path / "again.tif", **job)
    np.testing.assert_array_equal(read_all(done), read_all(again))


def test_learning_online_goes_on_where_it_was_stopped(tmp_path):
    clip = add_noise(make_clip(8, 1))[:, 0, :24, :32]
    write_raster(tmp_path / "in.tif", clip.astype(np.float32))
    job = {"source": tmp_path / "in.tif", "method": "f2f", "iterations": 2, "device": "cpu"}
    job["network"] = averaging(1)

    def stop(doing: str, done: int, *_: object) -> None:
        if (doing, done) == ("restoring", 5):
            raise KeyboardInterrupt

    out = tmp_path / "out.tif"
    with pytest.raises(KeyboardInterrupt):
        l1bsr_geo.denoise(output=out, resume=True, progress=stop, **job)
    assert not out.exists()
    seen = []
    l1bsr_geo.denoise(output=out, resume=True, progress=lambda *what: seen.append(what), **job)
    assert min(done for doing, done, *_ in seen if doing == "restoring") == 6
    assert min(done for doing, done, *_ in seen if doing == "learning") > 6
    again = l1bsr_geo.denoise(output=tmp_path / "again.tif", **job)
    np.testing.assert_allclose(read_all(out), read_all(again), atol=1e-3)
