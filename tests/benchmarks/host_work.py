"""What the host does for each tile beside the network: a profile of one run on one thread."""

import os
import time
import warnings
from collections import Counter
from pathlib import Path

import dask
import rasterio
import torch
from dask.callbacks import Callback
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

import l1bsr_geo
from l1bsr_geo.errors import GeometryWarning
from l1bsr_geo.models.registry import Model
from l1bsr_geo.tiling.allocator import reuse_large_arrays

ONCE = ("model", "unchecked", "statistics", "scene", "plan", "encoding")
"""Tasks of a whole scene: the halo is checked, statistics are taken."""


def read_tags(path: Path) -> dict[str, str]:
    with rasterio.open(path) as file:
        return file.tags()


class Profile(Callback):
    """CPU seconds of every kind of task, while it is entered; and of the network in tiles' tasks.

    To be used with dask's synchronous scheduler: one task at a time.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seconds, self.calls = Counter(), Counter()
        self._began, self._depth = {}, 0

    def __enter__(self) -> "Profile":
        self._hooks = (
            register_module_forward_pre_hook(self._enter_module),
            register_module_forward_hook(self._leave_module),
        )
        super().__enter__()
        return self

    def __exit__(self, *error) -> None:
        super().__exit__(*error)
        for hook in self._hooks:
            hook.remove()

    def _pretask(self, key, graph, state) -> None:
        self._began[kind_of(key)] = time.process_time()

    def _posttask(self, key, result, graph, state, worker) -> None:
        self._end(kind_of(key))

    def _enter_module(self, module, given) -> None:
        if self._depth == 0 and "restore-tiles" in self._began:  # elsewhere it tries samples
            self._began["network"] = time.process_time()
        self._depth += 1

    def _leave_module(self, module, given, result) -> None:
        self._depth -= 1
        if self._depth == 0 and "network" in self._began:
            self._end("network")

    def _end(self, kind: str) -> None:
        self.seconds[kind] += time.process_time() - self._began.pop(kind)
        self.calls[kind] += 1


def kind_of(key) -> str:
    """What a task does, from its key: its name without the token, such as "encode"."""
    words = [w for w in (key if isinstance(key, tuple) else (key,)) if isinstance(w, str)]
    if words[-1].startswith("restore-tiles"):  # with several tiles, keeping them has that name
        return "restore-tiles" if words[0] == "new" else "shelf"
    return words[-1].split("-")[0]


def profile_host(name: str, weights: Path | None, precision: str, tile: int | None, product: Path):
    """Figures of one run, to be made in a process of its own."""
    os.environ["GDAL_CACHEMAX"] = "128"  # as the command does
    reuse_large_arrays()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", GeometryWarning)  # there is no DEM
    model = Model(name, weights=weights, device="cpu", precision=precision)
    output = product.parent / f"{name}.tif"
    start = time.process_time()
    with dask.config.set(scheduler="synchronous"), Profile() as profile:
        l1bsr_geo.super_resolve(product, output, model=model, tile=tile)
    whole = time.process_time() - start
    tags = read_tags(output)
    output.unlink()
    if not profile.calls["restore-tiles"]:
        raise SystemExit("there is but one tile: make --tile smaller")
    told = {"model": name, "precision": tags["precision"], "tile size": int(tags["tile_size"])}
    told["tiles"] = profile.calls["restore-tiles"]
    return told | compare_with_network(profile.seconds, whole)


def compare_with_network(seconds: Counter, whole: float) -> dict:
    """CPU seconds, and shares of the network's."""
    network, restoring = seconds["network"], seconds["restore-tiles"]
    known = (*ONCE, "network", "restore-tiles")
    rest = sum(value for kind, value in seconds.items() if kind not in known)
    return {
        "network [s]": network,
        "tile stage without it [s]": restoring - network,
        "shelf, drawing, encoding, writing [s]": rest,
        "once in a scene [s]": whole - restoring - rest,
        "tile stage / network": (restoring - network) / network,
        "all host work for tiles / network": (restoring - network + rest) / network,
        "kinds of tasks [s]": {kind: round(value, 4) for kind, value in sorted(seconds.items())},
    }
