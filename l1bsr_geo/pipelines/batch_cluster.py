"""Scenes on a cluster, each a task that reads and writes where it runs."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from l1bsr_geo.errors import L1bsrGeoError
from l1bsr_geo.pipelines.batch_jobs import SceneJob
from l1bsr_geo.pipelines.batch_scene import Outcome, one_line, run_job, settle_job
from l1bsr_geo.tiling.cluster import address, has_gpu_slots

if TYPE_CHECKING:
    from distributed import Client, Future

log = logging.getLogger(__name__)

_AT_LEAST = 64  # scenes that wait at a cluster: enough for one that grows with its work
_PATIENCE = 60  # [s] for scenes to end when the batch is stopped


def count_places(client: Client) -> int:
    """How many scenes a cluster can do at once: one for each GPU slot, else for each thread."""
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    slots = sum(int(worker.get("resources", {}).get("GPU", 0)) for worker in workers)
    return slots or sum(worker["nthreads"] for worker in workers)


def share_out(client: Client, jobs: Sequence[SceneJob], *, resume: bool) -> Iterator[Outcome]:
    """Do scenes, as many at once as the cluster can, a bounded number of them known to it.

    Scenes whose workers died again and again are tried once more at the end, one by one: then it
    was not a neighbour's memory.

    Args:
        client: of the cluster.
        jobs: the scenes.
        resume: leave out what is written already, and go on with what was begun.

    Yields:
        The outcomes, as scenes end.
    """
    batch = _ClusterBatch(client, resume=resume)
    try:
        suspects = yield from batch.work_off(jobs)
        for suspect in suspects:
            if (yield from batch.work_off([suspect])):
                yield Outcome(suspect, "failed", error=_KILLER)
    except BaseException:
        batch.stop()
        raise


_KILLER = (
    "every worker that tried it died; most likely its memory was not enough: give workers more "
    "of it or fewer threads, or make tile smaller"
)


class _ClusterBatch:
    """The scenes that a cluster knows of."""

    def __init__(self, client: Client, *, resume: bool) -> None:
        self._client, self._resume, self._token = client, resume, uuid4().hex
        self._needs = {"GPU": 1} if has_gpu_slots(client) else None
        self._running: dict[Future[Any], SceneJob] = {}

    def work_off(self, jobs: Iterable[SceneJob]) -> Generator[Outcome, None, list[SceneJob]]:
        """Outcomes as they come; returns the scenes whose workers died."""
        from distributed import CancelledError, KilledWorker, as_completed

        coming, left = as_completed(), iter(jobs)
        suspects: list[SceneJob] = []
        while (room := self._count_room()) is not None:
            for job in islice(left, room):
                settled = settle_job(job, resume=self._resume)
                if settled is None:
                    coming.add(self._submit(job))
                else:
                    yield settled
            if not self._running:
                return suspects
            future = next(coming)
            if future.cancelled():  # nobody else cancels them
                break
            try:
                error = future.exception()
                outcome = future.result() if error is None else None
            except (OSError, CancelledError):  # its outcome stayed on a worker
                break
            job = self._running.pop(future)
            if outcome is not None:
                yield outcome
            elif isinstance(error, KilledWorker):
                log.info("%s: %s", job.name, one_line(error))
                suspects.append(job)
            else:
                yield Outcome(job, "failed", error=f"{type(error).__name__}: {one_line(error)}")
        yield from self._give_up(left)
        return suspects

    def _count_room(self) -> int | None:
        """How many more scenes the cluster may know of; None where it is gone."""
        if self._client.status != "running":
            return None
        try:
            threads: int = sum(self._client.nthreads().values())
        except OSError:
            return None
        return max(0, max(_AT_LEAST, 2 * threads) - len(self._running))

    def _submit(self, job: SceneJob) -> Future[Any]:
        future: Future[Any] = self._client.submit(
            _run_on_worker,
            job,
            self._resume,
            self._token,
            key=f"{job.name}-{uuid4().hex}",
            resources=self._needs,
        )
        self._running[future] = job
        return future

    def _give_up(self, left: Iterable[SceneJob]) -> Iterator[Outcome]:
        """The scheduler is gone, and what it knew with it."""
        gone = f"the scheduler {address(self._client)} went away; start it again, and "
        for job in [*self._running.values(), *left]:
            if job.output.exists() and not job.options.get("overwrite"):
                yield Outcome(job, "done")
            else:
                yield Outcome(job, "failed", error=f"{gone}run the batch with --resume")
        self._running.clear()

    def stop(self) -> None:
        """Scenes that run end at their next block and leave nothing; others do not begin."""
        from distributed import wait

        with suppress(OSError, ValueError, RuntimeError):  # the cluster may be gone, too
            self._client.run(_stop, self._token)
            wait(list(self._running), timeout=_PATIENCE)


_STOPPED: set[str] = set()  # batches, in a worker


def _stop(token: str) -> None:
    _STOPPED.add(token)


def _run_on_worker(job: SceneJob, resume: bool, token: str) -> Outcome:
    """A scene, on this worker alone; its share of the threads."""
    from distributed import get_worker

    def check(done: int = 0, total: int = 0) -> None:
        if token in _STOPPED:
            raise L1bsrGeoError("the batch was stopped")

    state = get_worker().state
    scenes = int(state.total_resources.get("GPU", 0)) or state.nthreads
    if token in _STOPPED:
        return Outcome(job, "failed", error="the batch was stopped")
    if job.output.exists() and not job.options.get("overwrite"):
        return Outcome(job, "done")  # the worker that wrote it died before it could say so
    return run_job(job, resume=resume, threads=max(1, state.nthreads // scenes), progress=check)
