"""What docs/clusters.md shows: run where it can be, else at least true to its tools."""

import ast
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
import yaml
from affine import Affine

from l1bsr_geo.pipelines.batch_jobs import read_jobs
from l1bsr_geo.tiling.cluster import connect

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/clusters.md").read_text()


def blocks(kind):
    return re.findall(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL)


def lines(*commands):
    """Command lines of the page that begin so, as words."""
    shown = [ln for block in blocks("sh") for ln in block.splitlines()]
    words = [shlex.split(line, comments=True) for line in shown]
    words = [w[1:] if w and "=" in w[0] else w for w in words]  # without a variable before it
    return [w for w in words if tuple(w[: len(commands)]) == commands]


def test_the_jobs_are_read(tmp_path):
    (tmp_path / "jobs.yaml").write_text(blocks("yaml")[0])
    jobs = {str(job.output.relative_to(tmp_path)): job for job in read_jobs(tmp_path / "jobs.yaml")}
    assert list(jobs) == ["out/d05.tif", "out/d06.tif", "maps/d06.tif", "out/burst_07.tif"]
    assert jobs["maps/d06.tif"].command == "ortho"
    assert jobs["out/d06.tif"].options["aoi"] == (-17.2, 32.6, -16.9, 32.8)


@pytest.mark.parametrize(
    ("command", "least"),
    [(("l1bsr-geo", "batch"), 6), (("dask", "scheduler"), 1), (("dask", "worker"), 2)],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else "",
)
def test_commands_take_the_options_shown(command, least):
    shown = lines(*command)
    assert len(shown) >= least
    program = "l1bsr_geo" if command[0] == "l1bsr-geo" else "dask"
    done = subprocess.run(
        [sys.executable, "-m", program, command[1], "--help"],
        capture_output=True, text=True, check=True,
        env={"COLUMNS": "200", "TERM": "dumb", "PATH": ""},
    )  # fmt: skip
    for words in shown:
        for option in (word for word in words if word.startswith("--")):
            assert option in done.stdout, words


def test_python_on_one_machine(tmp_path):
    """As a script of its own: workers start by importing it."""
    block = next(b for b in blocks("python") if "LocalCluster" in b)
    (tmp_path / "script.py").write_text(block)
    rng = np.random.default_rng(0)
    place = {"crs": "EPSG:32633", "transform": Affine(10, 0, 5e5, 0, -10, 5e6)}
    shape = {"driver": "GTiff", "count": 1, "height": 64, "width": 64, "dtype": "uint16"}
    with rasterio.open(tmp_path / "image.tif", "w", **shape, **place) as file:
        file.write(rng.integers(500, 900, (1, 64, 64)).astype(np.uint16))
        file.descriptions = ("B03",)
    entries = [f"{{input: image.tif, output: out/{n}.tif, model: bicubic}}" for n in range(2)]
    (tmp_path / "jobs.yaml").write_text(f"jobs: [{', '.join(entries)}]")
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == ["0 done ", "1 done "]
    assert all((tmp_path / name).exists() for name in ("out.tif", "out/0.tif", "out/1.tif"))


def test_python_for_other_clusters_is_python():
    """Their packages are not here; what is ours in them is imported and called as it is."""
    ours = {"run_batch": {"resume"}, "read_jobs": set()}
    others = [b for b in blocks("python") if "LocalCluster" not in b]
    assert len(others) == 2
    for block in others:
        tree = ast.parse(block)
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module.startswith("l1bsr_geo"):
                exec(compile(ast.Module([node], []), "page", "exec"), {})
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ours:
                assert {k.arg for k in node.keywords} <= ours[node.func.id]


def test_the_manifest_names_what_it_refers_to():
    cluster = yaml.safe_load(blocks("yaml")[1])
    name, spec = cluster["metadata"]["name"], cluster["spec"]
    assert (cluster["apiVersion"], cluster["kind"]) == ("kubernetes.dask.org/v1", "DaskCluster")
    service = spec["scheduler"]["service"]
    assert service["selector"] == {
        "dask.org/cluster-name": name,
        "dask.org/component": "scheduler",
    }
    ports = {p["name"] for p in spec["scheduler"]["spec"]["containers"][0]["ports"]}
    assert {p["targetPort"] for p in service["ports"]} == ports
    pod = spec["worker"]["spec"]
    mounted = {m["name"] for c in pod["containers"] for m in c["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}
    assert any(f"tcp://{name}-scheduler:8786" in line for line in lines("l1bsr-geo", "batch"))


def test_the_manifests_commands_start_a_scheduler_and_a_worker():
    """With the address in the environment, as the operator gives it."""
    spec = yaml.safe_load(blocks("yaml")[1])["spec"]
    made = [spec[part]["spec"]["containers"][0]["args"] for part in ("scheduler", "worker")]
    first, second = ([sys.executable, "-m", *args, "--no-dashboard"] for args in made)
    second = [word.replace("$(DASK_WORKER_NAME)", "here") for word in second]
    scheduler = subprocess.Popen([*first, "--port", "0"], stderr=subprocess.PIPE, text=True)
    at = next(w for line in scheduler.stderr for w in line.split() if w.startswith("tcp://"))
    environment = os.environ | {"DASK_SCHEDULER_ADDRESS": at, "PYTHONPATH": str(ROOT)}
    worker = subprocess.Popen(second, stderr=subprocess.DEVNULL, env=environment)
    try:
        with connect(at) as client:
            client.wait_for_workers(1, timeout=60)
            assert list(client.nthreads().values()) == [4]
    finally:
        for process in (worker, scheduler):
            process.terminate()
            process.communicate(timeout=30)


def test_costs_follow_from_what_was_measured():
    """The table of the plan: the formula beside it, on the files of the benchmarks."""
    rows = re.findall(r"^\| `(\S+)`.*?\| (\d+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) GB", PAGE, re.M)
    files = {
        "geometric": ("end_to_end_geometric", 1),
        "l1bsr": ("end_to_end_l1bsr_granule", 1),
        "l1bsr-rcan": ("end_to_end_rec_1152_lines", 2),
    }
    assert {row[0] for row in rows} == set(files)
    area = 2304 * 2552 * 1e-4  # km2
    granules = 1e6 / area / (1 - 0.04)
    assert [f"{area:.0f}", f"{granules:.0f}"] == ["588", "1772"]
    for model, *figures in rows:
        name, times = files[model]
        measured = json.loads((ROOT / f"docs/benchmarks/{name}.json").read_text())
        seconds, hours, cost, memory = map(float, figures)
        told = measured["runs"][0] if "runs" in measured else measured["1 granule(s), map"]
        told = {figure.lower(): value for figure, value in told.items()}
        assert seconds == pytest.approx(times * told["cpu [s]"], rel=0.01)
        assert hours == pytest.approx(granules * seconds / 3600, rel=0.01)
        assert cost == pytest.approx(0.04 * hours, rel=0.05)
        assert memory == pytest.approx(told["peak memory [mib]"] * 2**20 / 1e9, rel=0.03)
