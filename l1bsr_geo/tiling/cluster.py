"""A dask cluster: started for the work, joined at an address, or the one a program has already."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import dask
from dask.system import CPU_COUNT

import l1bsr_geo
from l1bsr_geo.errors import BadOptionError, ClusterError
from l1bsr_geo.tiling.allocator import reuse_large_arrays

if TYPE_CHECKING:
    from distributed import Client, Worker

log = logging.getLogger(__name__)

_PATIENCE = 20  # [s] for a scheduler to answer


@contextmanager
def connect(scheduler: str | None = None, workers: int | None = None) -> Iterator[Client | None]:
    """The cluster that works inside of this context; None where this process works alone.

    Args:
        scheduler: address of a running scheduler, such as ``tcp://10.0.0.1:8786``.
        workers: start this many worker processes here, one for each GPU or group of cores.

    Yields:
        A client of the scheduler or of the new workers; where neither is asked for, the client that
        this program has made before, if any.

    Raises:
        BadOptionError: both are asked for, there is less than one worker, or nobody answers.
        ClusterError: the workers have another version of this package, or none; ``distributed`` is
            not installed here.
    """
    if scheduler is not None and workers is not None:
        raise BadOptionError(
            "--scheduler joins a cluster and --workers starts one; give one of the two"
        )
    if workers is not None and workers < 1:
        raise BadOptionError(f"--workers {workers}: must be at least 1")
    if scheduler is None and workers is None:
        client = current_client()
        if client is not None:
            _equip(client)
        yield client
        return
    _require_distributed()
    opened = _join(scheduler) if scheduler is not None else _start(workers or 1)
    with opened as client:
        yield client


def current_client() -> Client | None:
    """The client that this program works with, unless it told dask to use another scheduler."""
    if "distributed" not in sys.modules:  # then nobody made a client
        return None
    if dask.config.get("scheduler", None) not in (None, "distributed", "dask.distributed"):
        return None
    from distributed import default_client

    try:
        client: Client = default_client()
    except ValueError:
        return None
    return client


def address(client: Client) -> str:
    """Where the scheduler is, or was."""
    return str(getattr(client.scheduler, "address", "the cluster"))


def has_gpu_slots(client: Client) -> bool:
    """Whether workers declare GPU slots (``dask worker --resources GPU=1``)."""
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    return any(worker.get("resources", {}).get("GPU") for worker in workers)


def _require_distributed() -> None:
    try:
        import distributed  # noqa: F401
    except ImportError as error:
        raise ClusterError(
            "a cluster needs the package distributed; pip install 'l1bsr-geo[distributed]'"
        ) from error


@contextmanager
def _join(address: str) -> Iterator[Client]:
    from distributed import Client

    try:
        client = Client(address, timeout=_PATIENCE)
    except (OSError, ValueError) as error:
        raise BadOptionError(
            f"--scheduler {address}: no dask scheduler answers there ({_first_line(error)}); give "
            "the address that dask scheduler printed, such as tcp://10.0.0.1:8786"
        ) from error
    with _quietly(), client:
        _equip(client)
        yield client


@contextmanager
def _start(count: int) -> Iterator[Client]:
    import torch
    from distributed import Client, LocalCluster

    threads = max(1, CPU_COUNT // count)
    slots = {"GPU": 1} if torch.cuda.is_available() else {}
    with (
        _quietly(),
        LocalCluster(
            n_workers=count,
            threads_per_worker=threads,
            resources=slots,
            dashboard_address=":0",
            silence_logs=logging.CRITICAL,
        ) as cluster,
        Client(cluster) as client,
    ):
        log.info("%d workers of %d threads", count, threads)
        _equip(client, ours=True)
        yield client


@contextmanager
def _quietly() -> Iterator[None]:
    """Dask's own words about lost connections are not for users; ours are."""
    if log.isEnabledFor(logging.DEBUG):
        yield
        return
    names = [name for name in logging.root.manager.loggerDict if name.startswith("distributed")]
    levels = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def _equip(client: Client, *, ours: bool = False) -> None:
    """Make every worker ready, now and when it joins later.

    Raises:
        ClusterError: a worker has another version of this package, or none.
    """
    from distributed import WorkerPlugin

    class Equipment(WorkerPlugin):
        name = "l1bsr_geo"
        idempotent = True

        def setup(self, worker: Worker) -> None:
            equip_worker(worker, version, ours=ours)

    version = l1bsr_geo.__version__
    try:
        client.register_plugin(Equipment())
    except Exception as error:  # what setup raised comes back as it is
        raise ClusterError(
            f"the workers of {address(client)} cannot be used ({_first_line(error)}); "
            f"install l1bsr-geo {version} in their environment"
        ) from error


def equip_worker(worker: Worker, version: str, *, ours: bool) -> None:
    """Threads, caches and memory of a worker process.

    Args:
        worker: of this process.
        version: of this package that the client has.
        ours: it was started for this work, has one GPU, by its number among the workers, and does
            nothing else.

    Raises:
        RuntimeError: another version is installed here.
    """
    if l1bsr_geo.__version__ != version:
        raise RuntimeError(f"{worker.address} has l1bsr-geo {l1bsr_geo.__version__}")
    os.environ.setdefault("GDAL_CACHEMAX", "64")
    if ours:
        reuse_large_arrays()
        # Ctrl-C goes to all processes of a terminal, but the client decides
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    import torch

    if ours and torch.cuda.device_count() > 1:
        os.environ["CUDA_VISIBLE_DEVICES"] = str(int(worker.name) % torch.cuda.device_count())
    # the network runs one tile at a time, on all threads that this worker may use
    torch.set_num_threads(worker.state.nthreads)


def _first_line(error: Any) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
