"""GET /containerLogs/{namespace}/{pod}/{container}.

My job: which log file a request means, upstream's refusals, and the streamed answer. I own the answer while it lasts.
Neighbours: `logs.reader` reads, the pod's worker knows the runs. Rule: once 200 is out, a failure becomes text in the
body, as upstream has it.
"""

import contextlib
from dataclasses import dataclass

from aiohttp import web

from minikubelet.clock import Clock
from minikubelet.logs.reader import LogOptions, read
from minikubelet.pods.launch import log_file
from minikubelet.pods.podref import find_container
from minikubelet.pods.records import ContainerRecord, Running, Terminated, Waiting
from minikubelet.pods.worker import PodWorker
from minikubelet.pods.workers import PodWorkers
from minikubelet.runtime.interface import LogFeed
from minikubelet.server.answers import HTTPError
from minikubelet.server.query import boolean, log_options

_PULL_WORDS = {
    "ErrImagePull": "image can't be pulled",
    "ImagePullBackOff": "trying and failing to pull image",
}


@dataclass(frozen=True, slots=True)
class _Run:
    """One run of a container: its number, and the bell of its log while it is written."""

    attempt: int
    container_id: str
    feed: LogFeed | None


async def container_logs(request: web.BaseRequest, workers: PodWorkers, clock: Clock, namespace: str, pod: str,
                         container: str) -> web.StreamResponse:
    options = log_options(request.query, clock.now())
    worker = workers.find(namespace, pod)
    if worker is None:
        raise HTTPError(404, f'pod "{pod}" does not exist')
    if find_container(worker.pod, container) is None:
        raise HTTPError(404, f'container "{container}" not found in pod "{pod}"')
    run = choose_run(worker, container, previous=boolean(request.query, "previous"))
    return await _stream(request, worker, container, run, options)


def choose_run(worker: PodWorker, container: str, *, previous: bool) -> _Run:
    """Raises HTTPError 400 where upstream has nothing to read from."""
    pod, record = worker.ref.name, worker.records.get(container)
    supervisor = worker.supervisors.get(container)
    if record is None or supervisor is None:
        raise HTTPError(400, f'container "{container}" in pod "{pod}" is not available')
    if previous:
        if record.last is None:
            raise HTTPError(400, f'previous terminated container "{container}" in pod "{pod}" not found')
        return _Run(_last_attempt(record), record.last.container_id, None)
    match record.state:
        case Running():
            return _Run(record.restart_count, record.container_id, supervisor.log_feed)
        case Terminated() as ended if ended.container_id:
            return _Run(record.restart_count, ended.container_id, None)
        case Terminated() if record.last is None:
            raise HTTPError(400, f'container "{container}" in pod "{pod}" is terminated')
        case Waiting() as waiting if record.last is None:
            words = _PULL_WORDS.get(waiting.reason, waiting.reason)
            raise HTTPError(400, f'container "{container}" in pod "{pod}" is waiting to start: {words}')
    assert record.last is not None
    return _Run(_last_attempt(record), record.last.container_id, None)


def _last_attempt(record: ContainerRecord) -> int:
    """While a container waits for its next start, its last run has the present number."""
    return record.restart_count if isinstance(record.state, Waiting) else max(record.restart_count - 1, 0)


async def _stream(request: web.BaseRequest, worker: PodWorker, container: str, run: _Run,
                  options: LogOptions) -> web.StreamResponse:
    answer = web.StreamResponse(headers={"Content-Type": "text/plain"})
    if request.version >= (1, 1):
        answer.enable_chunked_encoding()
    await answer.prepare(request)
    root = worker.context.place.log_dir
    path = log_file(root, worker.ref, container, run.attempt)
    try:
        blocks = read(root, str(path.relative_to(root)), options, run.feed)
        async with contextlib.aclosing(blocks):
            async for block in blocks:
                await answer.write(block)
    except OSError:
        await answer.write(f"unable to retrieve container logs for {run.container_id}".encode())
    await answer.write_eof()
    return answer
