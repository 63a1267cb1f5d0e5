"""A large dask graph computed in runs: bounded memory, results handed over as they come.

Given a whole graph at once, dask's schedulers keep a record of every task, and a cluster is sent
all of it before the first one starts. Here the wanted keys are cut into runs of neighbours; each
run is a small graph of its own, and what a later run needs is held until then and no longer.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import dask
import dask.local
import dask.threaded
from dask.core import get_dependencies
from dask.highlevelgraph import HighLevelGraph, MaterializedLayer
from dask.system import CPU_COUNT

from l1bsr_geo.errors import ClusterError
from l1bsr_geo.tiling.cluster import address, current_client, has_gpu_slots
from l1bsr_geo.tiling.shelf import Deliver, Graph, Shelf, ShelvedGraph, restores

if TYPE_CHECKING:
    from distributed import Client, Future

log = logging.getLogger(__name__)

LOCAL_RUN = 256
"""Wanted keys in a run on this machine: the threads are all busy but at a run's end."""

CLUSTER_RUN = 16
"""Wanted keys in a run for each thread of a cluster, which works on two runs at a time."""

LEAST_THREADS = 16
"""Threads that a cluster is offered work for, however few it has now."""


@dataclass(frozen=True)
class Runs:
    """The order of work: which tasks belong to which run, and what is held between them.

    Attributes:
        keys: wanted, of every run.
        tasks: all keys of a run that no run before it computes.
        held: keys computed in a run or before that later runs need: for how long, by run.
    """

    keys: list[list[Any]]
    tasks: list[list[Any]] = field(default_factory=list)
    held: dict[Any, int] = field(default_factory=dict)

    @classmethod
    def plan(cls, graph: Graph, keys: Sequence[Any], size: int) -> Runs:
        """Cut wanted keys, in the order given, into runs of at most ``size``."""
        runs = cls([list(keys[i : i + size]) for i in range(0, len(keys), size)])
        first: dict[Any, int] = {}
        for number, wanted in enumerate(runs.keys):
            new: list[Any] = []
            runs.held.update({key: number for key in wanted if key in first})
            waiting = list(wanted)
            while waiting:
                key = waiting.pop()
                if key in first:
                    continue
                first[key] = number
                new.append(key)
                for needed in get_dependencies(graph, key):
                    if first.get(needed, number) < number:
                        runs.held[needed] = number
                    else:
                        waiting.append(needed)
            runs.tasks.append(new)
        return runs

    def kept(self, number: int) -> list[Any]:
        """What a run computes for later ones."""
        return [key for key in self.tasks[number] if self.held.get(key, number) > number]

    def still(self, number: int, held: Iterable[Any]) -> list[Any]:
        """Those held that runs after this one need."""
        return [key for key in held if self.held[key] > number]


def compute_in_runs(
    graph: Graph, keys: Sequence[Any], deliver: Deliver, shelf: Shelf | None = None
) -> None:
    """Compute keys of a dask graph and hand over each result once, as it comes.

    They are computed by the client that this program works with, if there is one, else by dask's
    threads (or without any, as ``dask.config`` says).

    Args:
        graph: of all keys; what they do not need is not computed.
        keys: the wanted ones, neighbours beside each other.
        deliver: takes a key and its result; called in this process, by one thread or several.
        shelf: for restored tiles, if they are computed in this process; those of a cluster stay on
            its workers.

    Raises:
        ClusterError: the cluster went away, or a task kills its workers again and again.
    """
    client = current_client()
    if not keys:
        return
    if client is None:
        if shelf is not None:
            shelved = ShelvedGraph(graph, keys, shelf, deliver)
            graph, deliver = shelved.graph, shelved.deliver
        _compute_here(graph, keys, deliver)
    else:
        _compute_on(client, graph, keys, deliver)


def count_threads() -> int:
    """How many threads of this process dask may use."""
    if str(dask.config.get("scheduler", None)).startswith(("sync", "single")):
        return 1
    return int(dask.config.get("num_workers", None) or CPU_COUNT)


def _compute_here(graph: Graph, keys: Sequence[Any], deliver: Deliver) -> None:
    runs = Runs.plan(graph, keys, LOCAL_RUN)
    held: dict[Any, Any] = {}
    get = dask.local.get_sync if count_threads() == 1 else dask.threaded.get
    for number, wanted in enumerate(runs.keys):
        part: dict[Any, Any] = {key: graph[key] for key in runs.tasks[number]}
        part |= {key: (_Held([value]),) for key, value in held.items()}
        # Dask orders its work by the longest chain: results are handed over one after the other, so
        # that it follows the order given and holds few sources at a time.
        before: Any = None
        for step, key in enumerate(wanted):
            part["deliver", step] = (_hand_over, deliver, _Quoted(key), key, before)
            before = "deliver", step
        kept = [*runs.kept(number), *runs.still(number, held)]
        held.clear()
        _, *values = get(part, [before, *kept])
        held = dict(zip(kept, values, strict=True))


@dataclass(frozen=True, eq=False)
class _Held:
    """A value as a task: dask looks for no tasks inside of it, and lets go of it after its use."""

    value: list[Any]

    def __call__(self) -> Any:
        return self.value.pop()


@dataclass(frozen=True, eq=False)
class _Quoted:
    """A key that is not to be computed."""

    key: Any


def _hand_over(deliver: Deliver, name: _Quoted, result: Any, before: None) -> None:
    deliver(name.key, result)


def _compute_on(client: Client, graph: Graph, keys: Sequence[Any], deliver: Deliver) -> None:
    from distributed import CancelledError, KilledWorker, as_completed

    place = address(client)
    threads = sum(client.nthreads().values())
    if not threads:
        log.warning("%s has no workers yet: waiting for some", place)
    # workers may join later, on demand: there must be a demand
    size = CLUSTER_RUN * max(threads, LEAST_THREADS)
    work = _ClusterWork(client, graph, Runs.plan(graph, keys, size))
    coming = as_completed(work.submit(0) + work.submit(1))
    try:
        for future in coming:
            deliver(future.key, future.result())
            coming.update(work.finish(future.key))
    except KilledWorker as error:
        raise ClusterError(
            f"{error.task}: every worker that tried it died, the last was "
            f"{error.last_worker.address}; most likely its memory was not enough: give workers "
            "more, or make --tile smaller"
        ) from None
    except (CancelledError, OSError) as error:
        if client.status == "running" and not isinstance(error, CancelledError):
            raise  # of the work itself
        raise ClusterError(
            f"{place}: the scheduler went away in the middle of the work; start it again"
        ) from None


class _ClusterWork:
    """The runs on a cluster, two at a time: the next one is there when the workers want it."""

    def __init__(self, client: Client, graph: Graph, runs: Runs) -> None:
        self._client, self._graph, self._runs = client, graph, runs
        self._slots = has_gpu_slots(client)
        self._held: dict[Any, Future[Any]] = {}
        self._left = [len(wanted) for wanted in runs.keys]
        self._run_of = {key: n for n, wanted in enumerate(runs.keys) for key in wanted}

    def submit(self, number: int) -> list[Future[Any]]:
        """The futures of a run's wanted keys; none beyond the last run."""
        if number >= len(self._left):
            return []
        wanted, kept = self._runs.keys[number], self._runs.kept(number)
        part = {key: self._graph[key] for key in self._runs.tasks[number]} | self._held
        futures = self._client.get(self._annotate(part), [*wanted, *kept], sync=False)
        self._held |= dict(zip(kept, futures[len(wanted) :], strict=True))
        return list(futures[: len(wanted)])

    def finish(self, key: Any) -> list[Future[Any]]:
        """Note that a key is there; the futures of the run that its end makes room for."""
        number = self._run_of[key]
        self._left[number] -= 1
        if self._left[number]:
            return []
        self._held = {key: self._held[key] for key in self._runs.still(number, self._held)}
        return self.submit(number + 2)

    def _annotate(self, part: dict[Any, Any]) -> HighLevelGraph:
        """With a GPU slot for every task that restores, where workers declare some.

        Annotations of collections get lost when dask fuses tasks; this graph is sent as it is.
        """
        network = {k: v for k, v in part.items() if self._slots and restores(k)}
        rest = {key: value for key, value in part.items() if key not in network}
        slot = {"resources": {"GPU": 1}}
        layers = {"network": MaterializedLayer(network, annotations=slot)} if network else {}
        layers["rest"] = MaterializedLayer(rest)
        return HighLevelGraph(layers, {name: set(layers) - {name} for name in layers})
