"""`l1bsr-geo train`, as a user meets it."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import rasterio
import safetensors.torch
import torch
from affine import Affine

from l1bsr_geo.models.registry import Model
from l1bsr_geo.simulation.fine_scenes import made_city

RECIPE = """
method: dsa
network: {scale: 2, base: average, width: 8, encoder_blocks: 1, decoder_blocks: 1, contrast: 10,
          estimates_flow: false}
data: {kind: simulated-bursts, images: ["city*.tif"], count: 6, size: 24, frames: [5, 7]}
validation: {kind: simulated-bursts, images: [park.tif], count: 2, batch: 2, size: 32,
             frames: [5, 5], seed: 7}
schedule: {iterations: 30, batch: 4, lr: 2e-3, final_lr: 1e-4, ema: 0.9, precision: fp32, seed: 1,
           validate_every: 15, save_every: 10, log_every: 5}
"""


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A recipe, and made-up ground in place of photographs."""
    folder = tmp_path_factory.mktemp("train")
    (folder / "pictures").mkdir()
    profile = {"driver": "GTiff", "height": 200, "width": 200, "count": 1, "dtype": "float32"}
    profile |= {"crs": "EPSG:32631", "transform": Affine.scale(0.5)}
    for name, seed in (("city1", 1), ("city2", 2), ("park", 3)):
        with rasterio.open(folder / f"pictures/{name}.tif", "w", **profile) as file:
            file.write(made_city((200, 200), seed), 1)
    (folder / "dsa.yaml").write_text(RECIPE)
    return folder


@pytest.fixture(scope="module")
def train(cli, work):
    """Run a training in the folder, on one thread: the last bit depends on their number."""

    def run(*arguments, **options):
        return cli(
            "train", *arguments, "--data", "pictures", cwd=work,
            env={**os.environ, "OMP_NUM_THREADS": "1"}, **options,
        )  # fmt: skip

    return run


@pytest.fixture(scope="module")
def trained(train, work):
    done = train("dsa", "dsa.yaml")
    assert done.returncode == 0, done.stderr
    return done, work / "runs/dsa"


def read_log(folder):
    lines = [json.loads(text) for text in (folder / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]


def test_trains_and_says_how_well(trained):
    done, folder = trained
    log = read_log(folder)
    scores = {line["iteration"]: line["figures"]["score"] for line in log if "figures" in line}
    best = max(scores, key=scores.get)
    assert set(scores) == {0, 15, 30}
    assert scores[best] > scores[0] + 0.3  # dB over the blurred shift-and-add that it starts from
    said = f"best score {scores[best]:.4f} at iteration {best}, 30 of 30 iterations (done): "
    assert done.stdout.strip() == f"{said}{'runs/dsa/best.safetensors'}"
    losses = [line["loss"] for line in log if "loss" in line]
    assert np.mean(losses[-2:]) < np.mean(losses[:2])
    names = {"best.safetensors", "last.safetensors", "checkpoint.pt", "log.jsonl"}
    assert {path.name for path in folder.iterdir()} == names


def test_what_was_trained_restores(trained):
    weights = trained[1] / "best.safetensors"
    model = Model("dsa", weights, device="cpu")
    views = np.full((1, 3, 1, 16, 16), 900, np.float32)
    restored = model.restore(views, np.zeros((1, 3, 1, 2, 16, 16), np.float32))
    assert restored.shape == (1, 1, 32, 32)
    np.testing.assert_allclose(restored, 900, rtol=0.2)
    assert weights.stat().st_mode & 0o044 == 0o044  # others may read what ships


def test_stopped_by_ctrl_c_and_resumed_it_is_the_same(trained, train, work):
    whole = trained[1]
    command = [sys.executable, "-m", "l1bsr_geo", "train", "dsa", "dsa.yaml", "--out", "parted"]
    running = subprocess.Popen(
        [*command, "--data", "pictures"], cwd=work, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    log = work / "parted/log.jsonl"
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and '"iteration": 5,' not in (
        log.read_text() if log.is_file() else ""
    ):
        time.sleep(0.02)
    running.send_signal(signal.SIGINT)
    out, error = running.communicate(timeout=60)
    assert running.returncode == 130, error
    assert "of 30 iterations (interrupted)" in out
    assert "go on with --resume" in error
    assert "Traceback" not in error
    done = train("dsa", "dsa.yaml", "--out", "parted", "--resume")
    assert done.returncode == 0, done.stderr
    assert read_log(work / "parted") == read_log(whole)
    for name in ("best.safetensors", "last.safetensors"):
        a, b = (safetensors.torch.load_file(f / name) for f in (whole, work / "parted"))
        assert all(torch.equal(a[key], b[key]) for key in a)


def test_minutes_and_iterations_end_it(trained, train, work):
    start = trained[1] / "best.safetensors"
    done = train("dsa", "dsa.yaml", "--out", "short", "--minutes", "0", "--start", start)
    assert done.returncode == 0, done.stderr
    assert "0 of 30 iterations (minutes)" in done.stdout
    began, ended = read_log(work / "short")[0], read_log(trained[1])
    best = max(line["figures"]["score"] for line in ended if "figures" in line)
    assert began["figures"]["score"] == pytest.approx(best, abs=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["dsa", "dsa.yaml"], "runs/dsa holds a training already"),
        (["fnet", "dsa.yaml"], "dsa.yaml: method: found dsa, fnet is asked for"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(trained, train, arguments, message):
    done = train(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_acts_parameters_are_searched(cli, tmp_path):
    recipe = tmp_path / "act.yaml"
    recipe.write_text(
        "objective: {noises: [4, 32], counts: [5], bursts: 2}\n"
        "data: {kind: simulated-bursts, count: 2, size: 32, frames: [5, 5]}\nschedule: {}\n"
    )
    done = cli("train", "act", recipe, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "run/act.json").read_text())
    assert found["noise"] == 32  # as these bursts have it
    assert len(found["trials"]) == 2
    again = cli("train", "act", recipe, "--out", tmp_path / "run")
    assert again.returncode == 2
    assert "exists already" in again.stderr
