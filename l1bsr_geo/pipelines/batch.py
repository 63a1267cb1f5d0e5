"""Many scenes: one after the other, or shared out over a cluster."""

from collections.abc import Generator, Sequence
from dataclasses import replace

from l1bsr_geo.errors import BadOptionError
from l1bsr_geo.pipelines.batch_cluster import count_places, share_out
from l1bsr_geo.pipelines.batch_jobs import SceneJob
from l1bsr_geo.pipelines.batch_scene import Outcome, run_job, settle_job
from l1bsr_geo.tiling.cluster import connect


def run_batch(
    jobs: Sequence[SceneJob],
    *,
    scheduler: str | None = None,
    workers: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
) -> Generator[Outcome, None, None]:
    """Do many scenes, whatever becomes of the others; folders of outputs are made.

    Without a cluster one is done after the other, here. On a cluster each scene is one task, which
    reads and writes where it runs. Where there are fewer scenes than it could do at once, one is
    done after the other and its tiles are shared out.

    Args:
        jobs: from ``read_jobs``.
        scheduler: address of a dask cluster; where None, and no workers are asked for, the client
            that this program has already, if any.
        workers: start a local cluster of so many processes.
        resume: leave out what is written already, and go on with what was begun.
        overwrite: replace what is written already.

    Yields:
        The outcomes, as scenes end.

    Raises:
        BadOptionError: resume and overwrite, or a cluster that does not answer.
        ClusterError: the cluster cannot be used.
    """
    if resume and overwrite:
        raise BadOptionError("--resume keeps what is written and --overwrite replaces it; give one")
    if overwrite:
        jobs = [replace(job, options={**job.options, "overwrite": True}) for job in jobs]
    with connect(scheduler, workers) as client:
        if client is not None and len(jobs) >= count_places(client):
            yield from share_out(client, jobs, resume=resume)
        else:
            for job in jobs:
                yield settle_job(job, resume=resume) or run_job(job, resume=resume)
