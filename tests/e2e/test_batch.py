"""Many scenes: what a file of them may say, and that none suffers from another."""

import inspect
import json
import logging
import os
import signal
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from itertools import pairwise
from pathlib import Path
from threading import Thread

import dask
import numpy as np
import pytest
import rasterio
import yaml
from affine import Affine
from distributed import Client, LocalCluster
from scipy.ndimage import gaussian_filter
from torch import nn

from l1bsr_geo import super_resolve
from l1bsr_geo.cli import main
from l1bsr_geo.errors import BadInputError, BadOptionError, L1bsrGeoError, MissingInputError
from l1bsr_geo.models.base import ModelSpec
from l1bsr_geo.pipelines import batch_cluster
from l1bsr_geo.pipelines.bands import orthorectify_bands
from l1bsr_geo.pipelines.batch import run_batch
from l1bsr_geo.pipelines.batch_jobs import PIPELINES, SceneJob, options_of, read_jobs
from tests.synthetic.slow_restoration import NotingNetwork

# dask leaves sockets to the garbage collector when processes are killed
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


def write_raster(path, size=96, seed=0, names=("B03", "B04")):
    """Bands of one ground on a map; four without names, which is warned of."""
    count = len(names or "four")
    rng = np.random.default_rng(seed)
    green = gaussian_filter(rng.normal(size=(size, size)), 1.5) * 1500 + 2000
    bands = np.stack([green] * count) + rng.normal(size=(count, size, size)) * 10
    place = {"crs": "EPSG:32633", "transform": Affine(10, 0, 5e5, 0, -10, 5e6)}
    shape = {"count": count, "height": size, "width": size, "dtype": "uint16"}
    with rasterio.open(path, "w", driver="GTiff", **shape, **place) as file:
        file.write(np.clip(bands, 1, 4095).astype(np.uint16))
        if names:
            file.descriptions = names
    return path


def read(path):
    with rasterio.open(path) as file:
        return file.read()


@pytest.fixture(scope="module")
def rasters(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rasters")
    for seed, name in enumerate("abcd"):
        write_raster(folder / f"{name}.tif", seed=seed)
    return folder


@pytest.fixture
def scenes(tmp_path):
    """A file of jobs from its text."""

    def write(text):
        path = tmp_path / "jobs.yaml"
        path.write_text(text)
        return path

    return write


# ------------------------------------------------------------------------------- files of jobs


@pytest.mark.parametrize("command", PIPELINES)
def test_options_are_those_of_the_command_line(command):
    others = {"source", "output", "scheduler", "workers", "resume"}
    assert set(options_of(command)) == set(inspect.signature(getattr(main, command)).parameters) - (
        others
    )


def test_what_a_file_says(scenes, tmp_path):
    path = scenes(
        "command: register\n"
        "defaults: {input: S2A.SAFE, dtype: uint16, dem: dem, model: geometric}\n"
        "jobs:\n"
        "  - {output: out/d05.tif, detector: 5, no-ortho: true, refine: map.tif}\n"
        "  - {output: /far/d06.tif, detector: 6, command: sr, bands: 'B02, B03',\n"
        "     refine: sentinelhub}\n"
        "  - {input: x.tif, output: x-map.tif, command: ortho, aoi: '1,2,3,4', dtype: float32}\n"
    )
    first, second, third = read_jobs(path)
    shared = {"dtype": "uint16", "dem": tmp_path / "dem"}
    assert first == SceneJob(
        "d05",
        "register",
        tmp_path / "S2A.SAFE",
        tmp_path / "out/d05.tif",
        shared | {"detector": 5, "ortho": False, "refine": tmp_path / "map.tif"},
    )
    assert (second.command, second.output) == ("sr", Path("/far/d06.tif"))
    own = {"detector": 6, "bands": ("B02", "B03"), "refine": "sentinelhub"}
    assert second.options == shared | {"model": "geometric"} | own
    assert (third.name, third.source) == ("x-map", tmp_path / "x.tif")
    assert third.options == {"dem": tmp_path / "dem", "dtype": "float32", "aoi": (1, 2, 3, 4)}
    assert read_jobs(path, tmp_path / "else")[0].output == tmp_path / "else/out/d05.tif"


def test_an_area_as_a_file_lies_beside_the_jobs(scenes, tmp_path, monkeypatch):
    ring = [[1, 1], [2, 1], [2, 2], [1, 1]]
    area = {"type": "Polygon", "coordinates": [ring]}
    (tmp_path / "area.geojson").write_text(json.dumps(area))
    monkeypatch.chdir("/")
    (job,) = read_jobs(scenes("jobs: [{input: a.tif, output: b.tif, aoi: area.geojson}]"))
    assert job.options["aoi"].bounds == (1, 1, 2, 2)


def test_scenes_of_one_name_are_told_apart(scenes):
    text = "jobs: [{input: a.tif, output: d05/sr.tif}, {input: a.tif, output: d06/sr.tif}]"
    assert [job.name for job in read_jobs(scenes(text))] == ["d05/sr.tif", "d06/sr.tif"]


GOOD = "{input: a.tif, output: a-out.tif}"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("jobs: [", "is not YAML"),
        ("jobs: \x01", "is not YAML"),
        ("[" * 100_000, "nested more than 50 levels"),
        ("- 1", "neither a list of jobs"),
        ("jobs: []", "has no jobs"),
        ("jobs: 5", "jobs: found 5, expected a list"),
        (f"jobs: [{GOOD}]\nscheduler: x", "found 'scheduler', allowed command, defaults, jobs"),
        (f"jobs: [{GOOD}]\ncommand: train", "command: found 'train', allowed sr, register, ortho"),
        (f"jobs: [{GOOD}]\ndefaults: {{modle: x}}", "defaults: found 'modle', allowed input"),
        (f"jobs: [{GOOD}]\ndefaults: 5", "defaults: found 5, expected options"),
        (f"jobs: [{GOOD}, 5]", "job 2: found 5, expected options"),
        ("jobs: [{output: b.tif}]", r"job 1 \(b.tif\): input: found None, expected a path"),
        ("jobs: [{input: a.tif}]", "output: found None, expected a path"),
        ("jobs: [{input: a.tif, output: 7}]", "output: found 7, expected a path"),
        ("jobs: [{input: a, output: b, modle: x}]", r"job 1 \(b\): found 'modle', allowed input"),
        ("jobs: [{input: a, output: b, resume: true}]", "found 'resume'"),
        ("jobs: [{input: a, output: b, command: ortho, tile: 9}]", "found 'tile'"),
        ("jobs: [{input: a, output: b, command: register, frames: 9}]", "found 'frames'"),
        (
            "jobs: [{input: a, output: b, detector: five}]",
            "detector: found 'five', allowed a whole",
        ),
        ("jobs: [{input: a, output: b, detector: 0}]", "detector: found 0, expected 1 or more"),
        ("jobs: [{input: a, output: b, dtype: int8}]", "dtype: found 'int8', allowed"),
        ("jobs: [{input: a, output: b, no-ortho: 1}]", "no_ortho: found 1, allowed true or false"),
        ("jobs: [{input: a, output: b, model: srgan}]", "model: found 'srgan', allowed"),
        ("jobs: [{input: a, output: b, model: 5}]", "model: found 5, allowed a text or null"),
        ("jobs: [{input: a, output: b, crs: mars}]", "--crs mars: not a coordinate"),
        ("jobs: [{input: a, output: b, aoi: '4,0,1,2'}]", "--aoi 4,0,1,2: expected west < east"),
        ("jobs: [{input: a, output: b, aoi: no.geojson}]", "no.geojson: no such file"),
        (f"jobs: [{GOOD}, {GOOD}]", "a-out.tif is the output of several jobs: a-out.tif, a-out"),
        (f"jobs: [{GOOD}, {{input: b, output: ./x/../a-out.tif}}]", "is the output of several"),
        ("jobs: [{input: a, output: b, layers: b}]", "is the output of several jobs: b, b"),
        (f"jobs: [{GOOD}, {{input: a-out.tif, output: b.tif}}]", "the output of a-out and the inp"),
    ],
)
def test_a_mistake_is_one_line(scenes, text, words):
    with pytest.raises((BadOptionError, BadInputError), match=words) as raised:
        read_jobs(scenes(text))
    assert "\n" not in str(raised.value)
    assert "jobs.yaml" in str(raised.value)


def test_a_mistake_in_the_file_is_exit_code_2_and_nothing_is_done(cli, rasters, scenes, tmp_path):
    text = f"jobs: [{{input: {rasters}/a.tif, output: a.tif}}, {{input: {rasters}/b.tif}}]"
    done = cli("batch", scenes(text))
    assert done.returncode == 2
    assert done.stderr.startswith("error: jobs.yaml: job 2 (no output): output: found None")
    assert [p.name for p in tmp_path.iterdir()] == ["jobs.yaml"]
    with pytest.raises(MissingInputError, match="no such file of jobs"):
        read_jobs(tmp_path / "none.yaml")


def test_a_catalog(scenes, tmp_path):
    """Names of placeholders and wildcards; options of a source; sources that are not for us."""
    data = tmp_path / "data"
    data.mkdir()
    for name in ("x1", "x2"):
        write_raster(data / f"{name}.tif", size=16)
    catalog = {
        "meta": {"roots": ["nowhere", "data"], "version": "1"},
        "crops_{n}": {
            "uri": "crop{n}.tif",
            "placeholders": {"n": ["00", "01"]},
            "metadata": {"l1bsr_geo": {"detector": 5, "no-ortho": True, "dem": "dem"}},
        },
        "strip": {
            "uri": "strip.tif",
            "metadata": {"l1bsr_geo": {"command": "ortho"}},
            "variants": [{"version": "1"}, {"version": "2", "uri": "strip2.tif"}],
        },
        "all": {"uri": "x*.tif", "metadata": {"l1bsr_geo": None}},
        "dem": {"uri": "dem.tif", "driver": {"name": "rasterio"}},
    }
    path = scenes(yaml.safe_dump(catalog, sort_keys=False))
    jobs = {job.name: job for job in read_jobs(path, tmp_path / "out")}
    assert {name: job.source.name for name, job in jobs.items()} == {
        "crops_00": "crop00.tif",
        "crops_01": "crop01.tif",
        "strip_1": "strip.tif",
        "strip_2": "strip2.tif",
        "all_x1": "x1.tif",
        "all_x2": "x2.tif",
    }
    assert {job.source.parent for job in jobs.values()} == {data}
    assert jobs["crops_01"].output == tmp_path / "out/crops_01.tif"
    options = {"detector": 5, "ortho": False, "dem": tmp_path / "dem"}
    assert jobs["crops_01"].options == options
    assert jobs["strip_2"].command == "ortho"
    with pytest.raises(BadOptionError, match="a catalog names no outputs; give --out FOLDER"):
        read_jobs(path)


def test_our_own_catalog_is_one(tmp_path):
    """Where no source has options of ours, all rasters are meant; most of it is not there."""
    path = Path(__file__).parents[2] / "data_catalog.yaml"
    catalog = yaml.safe_load(path.read_text())
    crops = {name: catalog[name] for name in ("meta", "l1bsr_example_{sample}")}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(crops))
    jobs = read_jobs(tmp_path / "c.yaml", tmp_path)
    assert [job.name for job in jobs] == [f"l1bsr_example_0{n}" for n in range(10)]
    assert jobs[3].source == tmp_path / "l1bsr_examples/03.tif"


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({"uri": "a.tif", "driver": "pyogrio"}, r"no source is a raster or has metadata.l1bsr_geo"),
        ({"uri": 5}, "s.uri: found 5, expected a text"),
        ({"uri": "s3://a/b.tif", "driver": "rasterio"}, "found 's3://a/b.tif', expected a path"),
        ({"uri": "{year}.tif", "driver": "rasterio"}, "expected a path; give its placeholders"),
        ({"uri": "no*.tif", "driver": "rasterio"}, "nothing matches"),
        ({"uri": "a", "metadata": {"l1bsr_geo": 5}}, "metadata.l1bsr_geo: found 5"),
        ({"uri": "a", "metadata": {"l1bsr_geo": {"x": 1}}}, "s: found 'x', allowed model"),
        ({"uri": "a", "placeholders": {"n": 5}}, "s.placeholders.n: found 5, expected a list"),
        ({"uri": "a", "variants": [5]}, "s.variants: found 5"),
        (
            {"uri": "{n}", "driver": "raster", "placeholders": {"n": ["../../x"]}},
            "must not be a path",
        ),
    ],
)
def test_a_mistake_in_a_catalog_is_one_line(scenes, tmp_path, source, words):
    with pytest.raises(L1bsrGeoError, match=words) as raised:
        read_jobs(scenes(yaml.safe_dump({"s": source})), tmp_path)
    assert "\n" not in str(raised.value)


# ------------------------------------------------------------------------------- in one process


def test_one_fails_the_others_are_as_if_alone(cli, rasters, scenes, tmp_path):
    """Then what is there is left, or refused, or replaced."""
    west = "jobs:\n" + "".join(
        f"  - {{input: {rasters / source}, output: out/{output}, {rest}}}\n"
        for source, output, rest in (
            ("a.tif", "a.tif", "model: geometric"),
            ("none.tif", "none.tif", ""),
            ("b.tif", "deep/b.tif", "command: ortho, crs: EPSG:32632"),
        )
    )
    path = scenes(west)
    done = cli("batch", path, "--report", tmp_path / "report.json")
    assert done.returncode == 1
    assert "2 done, 1 failed" in done.stdout
    assert "2 of 3: none failed: " in done.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["scenes"] == {"done": 2, "failed": 1}
    assert [job["state"] for job in report["jobs"]] == ["done", "failed", "done"]
    assert "none.tif is not there" in report["jobs"][1]["error"]
    out = tmp_path / "out"
    assert sorted(p.name for p in out.rglob("*")) == ["a.tif", "b.tif", "deep"]
    super_resolve(rasters / "a.tif", tmp_path / "a.tif", model="geometric")
    orthorectify_bands(rasters / "b.tif", tmp_path / "b.tif", crs="EPSG:32632")
    np.testing.assert_array_equal(read(out / "a.tif"), read(tmp_path / "a.tif"))
    np.testing.assert_array_equal(read(out / "deep/b.tif"), read(tmp_path / "b.tif"))

    jobs = read_jobs(path)
    stamps = [(out / name).stat().st_mtime_ns for name in ("a.tif", "deep/b.tif")]
    outcomes = list(run_batch(jobs, resume=True))
    assert [o.state for o in outcomes] == ["there already", "failed", "there already"]
    outcomes = list(run_batch(jobs))
    assert [o.state for o in outcomes] == ["failed"] * 3
    assert "exists already" in outcomes[0].error
    assert stamps == [(out / name).stat().st_mtime_ns for name in ("a.tif", "deep/b.tif")]
    outcomes = list(run_batch(jobs, overwrite=True))
    assert [o.state for o in outcomes] == ["done", "failed", "done"]
    assert stamps[0] != (out / "a.tif").stat().st_mtime_ns
    with pytest.raises(BadOptionError, match="give one"):
        next(run_batch(jobs, overwrite=True, resume=True))


def test_all_done_is_exit_code_0_and_json(cli, rasters, scenes):
    done = cli("batch", scenes(f"jobs: [{{input: {rasters}/a.tif, output: a.tif}}]"), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["scenes"] == {"done": 1}


def test_warnings_are_of_their_scene(cli, scenes, tmp_path):
    """Both say the same, at the same line of code, and neither is left out."""
    for name in ("a", "b"):
        write_raster(tmp_path / f"{name}.tif", names=None)
    text = "jobs: [{input: a.tif, output: one.tif}, {input: b.tif, output: two.tif}]"
    done = cli("batch", scenes(text))
    lines = [line for line in done.stderr.splitlines() if line.startswith("warning: ")]
    assert [line.split(":")[1].strip() for line in lines] == ["one", "two"]


class Broken(nn.Module):
    """A network with a mistake."""

    spec = ModelSpec("broken", scale=2, halo=2)

    def forward(self, views, flow=None):
        raise RuntimeError("a mistake\nof two lines")


def test_a_mistake_of_ours_is_told_with_its_traceback(rasters, tmp_path):
    jobs = [
        SceneJob("broken", "sr", rasters / "a.tif", tmp_path / "a.tif", {"model": Broken()}),
        SceneJob("good", "sr", rasters / "b.tif", tmp_path / "b.tif", {"model": "geometric"}),
    ]
    broken, good = run_batch(jobs)
    assert (broken.state, good.state) == ("failed", "done")
    assert broken.error == "RuntimeError: a mistake of two lines"
    assert "in forward" in broken.traceback
    assert [p.name for p in tmp_path.iterdir()] == ["b.tif"]


# ------------------------------------------------------------------------------- on a cluster


@contextmanager
def cluster_of(workers, threads, **options):
    with LocalCluster(
        n_workers=workers,
        threads_per_worker=threads,
        processes=True,
        dashboard_address=":0",
        silence_logs=logging.CRITICAL,
        **options,
    ) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def cluster():
    """Two workers of one thread."""
    with cluster_of(2, 1) as there:
        yield there


@pytest.fixture
def slow_jobs(rasters, tmp_path):
    """Scenes whose network notes what it does, each in a file of its own."""

    def make(names="abcd", seconds=0.02, tile=32):
        return [
            SceneJob(
                name,
                "sr",
                rasters / f"{name}.tif",
                tmp_path / f"{name}.tif",
                {"model": NotingNetwork(tmp_path / f"{name}.notes", seconds), "tile": tile},
            )
            for name in names
        ]

    return make


def processes(notes):
    """Those that worked on a scene."""
    lines = notes.read_text().splitlines() if notes.exists() else []
    return {int(line.split()[-2]) for line in lines}


def span(notes):
    """When the work on a scene began and ended."""
    times = [float(line.split()[-1]) for line in notes.read_text().splitlines()]
    return min(times), max(times)


@pytest.fixture(scope="module")
def alone(rasters, tmp_path_factory):
    """The pixels of scenes done one by one."""
    folder = tmp_path_factory.mktemp("alone")
    pixels = {}
    for name in "abcd":
        model = NotingNetwork(folder / "notes", 0)
        super_resolve(rasters / f"{name}.tif", folder / f"{name}.tif", model=model, tile=32)
        pixels[name] = read(folder / f"{name}.tif")
    return pixels


def assert_done(outcomes, folder, alone):
    assert {o.job.name: o.state for o in outcomes} == dict.fromkeys(alone, "done")
    for name, pixels in alone.items():
        np.testing.assert_array_equal(read(folder / f"{name}.tif"), pixels)
    assert not list(folder.glob(".*"))


def test_scenes_are_shared_out(cluster, slow_jobs, alone, tmp_path):
    outcomes = list(run_batch(slow_jobs(), scheduler=cluster.scheduler_address))
    assert_done(outcomes, tmp_path, alone)
    each = [processes(tmp_path / f"{name}.notes") for name in "abcd"]
    assert all(len(pids) == 1 for pids in each)  # no scene was torn apart
    assert len(set.union(*each)) == 2
    assert os.getpid() not in set.union(*each)


def test_few_scenes_share_out_their_tiles(cluster, slow_jobs, alone, tmp_path):
    (outcome,) = run_batch(slow_jobs("a", 0.1), scheduler=cluster.scheduler_address)
    assert outcome.state == "done"
    np.testing.assert_array_equal(read(tmp_path / "a.tif"), alone["a"])
    assert len(processes(tmp_path / "a.notes") - {os.getpid()}) == 2


def kill_worker_of(notes, times=1):
    """Kill the worker that is at a scene, so many workers in all."""
    killed = set()

    def watch():
        end = time.monotonic() + 60
        while len(killed) < times and time.monotonic() < end:
            for pid in processes(notes) - killed:
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)
            time.sleep(0.01)

    thread = Thread(target=watch)
    thread.start()
    return thread


@pytest.mark.parametrize("resume", [False, True])
def test_a_killed_workers_scene_is_done_by_another(cluster, slow_jobs, alone, tmp_path, resume):
    killing = kill_worker_of(tmp_path / "b.notes")
    jobs = slow_jobs()
    outcomes = list(run_batch(jobs, scheduler=cluster.scheduler_address, resume=resume))
    killing.join()
    assert_done(outcomes, tmp_path, alone)
    assert len(processes(tmp_path / "b.notes")) == 2


def test_a_scene_that_kills_its_workers_fails_alone(
    cluster, slow_jobs, alone, tmp_path, monkeypatch
):
    """It is tried with the others, and once more without them."""
    monkeypatch.setattr(cluster.scheduler, "allowed_failures", 0)
    killing = kill_worker_of(tmp_path / "b.notes", times=2)
    outcomes = list(run_batch(slow_jobs(), scheduler=cluster.scheduler_address))
    killing.join()
    states = {o.job.name: o.state for o in outcomes}
    assert states == {"a": "done", "b": "failed", "c": "done", "d": "done"}
    assert "every worker that tried it died" in outcomes[-1].error
    for name in "acd":
        np.testing.assert_array_equal(read(tmp_path / f"{name}.tif"), alone[name])
    assert not (tmp_path / "b.tif").exists()


def test_many_scenes_begin_at_once_and_end_when_they_shall(cluster, rasters, tmp_path):
    """The cluster knows of few of them; the rest is never sent."""
    model = NotingNetwork(tmp_path / "notes", 0)
    jobs = [
        SceneJob(f"s{n}", "sr", rasters / "a.tif", tmp_path / f"{n}.tif", {"model": model})
        for n in range(20_000)
    ]
    start = time.monotonic()
    with closing(run_batch(jobs, scheduler=cluster.scheduler_address)) as outcomes:
        assert next(outcomes).state == "done"
        assert time.monotonic() - start < 15
        assert len(cluster.scheduler.tasks) <= batch_cluster._AT_LEAST
    assert time.monotonic() - start < 30
    done = len(list(tmp_path.glob("*.tif")))
    assert 0 < done < batch_cluster._AT_LEAST
    assert not list(tmp_path.glob(".*"))


@pytest.fixture(scope="module")
def wide():
    """One worker of two threads."""
    with cluster_of(1, 2) as there:
        yield there


def settings():
    """Of the process of a worker that scenes share."""
    import warnings

    return dask.config.get("scheduler", None), len(warnings.filters), warnings.showwarning.__name__


def test_scenes_of_one_process_keep_apart(wide, tmp_path):
    """Each hears its own warnings, and what is set for all is put back after the last."""
    names = [f"s{n}" for n in range(6)]
    jobs = []
    for n, name in enumerate(names):
        unnamed = None if n % 2 else ("B03", "B04")
        path = write_raster(tmp_path / f"{name}-in.tif", seed=n, names=unnamed)
        model = NotingNetwork(tmp_path / f"{name}.notes", 0.05)
        options = {"model": model, "tile": 32}
        jobs.append(SceneJob(name, "sr", path, tmp_path / f"{name}.tif", options))
    with Client(wide) as client:
        before = client.run(settings)
        outcomes = {o.job.name: o for o in run_batch(jobs)}  # the program's own client
        assert client.run(settings) == before
    assert {o.state for o in outcomes.values()} == {"done"}
    for n, name in enumerate(names):
        assert len(outcomes[name].warnings) == n % 2, name
    spans = [span(tmp_path / f"{name}.notes") for name in names]
    starts = sorted(begin for begin, _ in spans)
    assert any(begin < start < end for begin, end in spans for start in starts)  # two at once


def test_a_gpu_slot_is_one_scene(slow_jobs, alone, tmp_path):
    with cluster_of(1, 4, resources={"GPU": 1}) as slots:
        outcomes = list(run_batch(slow_jobs(), scheduler=slots.scheduler_address))
    assert_done(outcomes, tmp_path, alone)
    spans = sorted(span(tmp_path / f"{name}.notes") for name in "abcd")
    assert all(end <= begin for (_, end), (begin, _) in pairwise(spans))


def test_the_scheduler_goes_away(slow_jobs, tmp_path):
    """Every scene has an outcome; nothing is said to be done that is not."""
    command = [sys.executable, "-m", "dask"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    scheduler = subprocess.Popen(
        [*command, "scheduler", "--port", "0", "--no-dashboard", "--host", "127.0.0.1"],
        stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    at = next(w for line in scheduler.stderr for w in line.split() if w.startswith("tcp://"))
    worker = subprocess.Popen(
        [*command, "worker", at, "--nthreads", "1", "--no-dashboard", "--no-nanny"],
        stderr=subprocess.DEVNULL, env=environment,
    )  # fmt: skip

    def kill():
        end = time.monotonic() + 60
        while not list(tmp_path.glob("*.tif")) and time.monotonic() < end:
            time.sleep(0.01)
        scheduler.kill()

    killing = Thread(target=kill)
    killing.start()
    try:
        with dask.config.set({"distributed.comm.timeouts.connect": "2s"}):
            outcomes = list(run_batch(slow_jobs(seconds=0.1), scheduler=at))
    finally:
        for process in (scheduler, worker):
            process.kill()
            process.communicate()
        killing.join()
    states = {o.job.name: o.state for o in outcomes}
    assert states == {
        name: "done" if (tmp_path / f"{name}.tif").exists() else "failed" for name in "abcd"
    }
    assert set(states.values()) == {"done", "failed"}
    for outcome in outcomes:
        assert outcome.error is None or (at in outcome.error and "went away" in outcome.error)


@pytest.mark.parametrize("arguments", [[], ["--workers", "2"]], ids=["here", "workers"])
def test_ctrl_c_leaves_nothing(tmp_path, scenes, arguments):
    """It goes to all processes of a terminal, those of workers, too."""
    write_raster(tmp_path / "in.tif", size=320)
    entries = [f"{{input: in.tif, output: out/{n}.tif}}" for n in range(3)]
    path = scenes(f"defaults: {{model: geometric, tile: 64}}\njobs: [{', '.join(entries)}]")
    run = subprocess.Popen(
        [sys.executable, "-m", "l1bsr_geo", "batch", str(path), *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    end = time.monotonic() + 60
    while not list(tmp_path.glob("out/.*.parts/*-*.tif")) and run.poll() is None:
        assert time.monotonic() < end
        time.sleep(0.01)
    os.killpg(run.pid, signal.SIGINT)
    said, errors = run.communicate(timeout=60)
    assert run.returncode == 130, errors
    assert "Traceback" not in errors
    assert "not begun" in said
    assert not [p for p in (tmp_path / "out").iterdir() if p.name.startswith(".")]
