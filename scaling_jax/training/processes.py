"""Several processes that make one run: how they find each other, speak, and end together.

JAX is multi-controller: every process runs the same program on its own devices and builds its own rows of
a batch. Process 0 alone writes records, events and tables. What processes tell each other beside arrays
goes through JAX's coordination service (on process 0), so that it mixes with no collective on the devices.

No process waits for ever for another one:
- a process that never comes: `start` ends all with exit code 2 after a time-out, naming the address;
- one that is refused (`InputError`) or fails tells the others, which end with its message and exit code;
- one that is killed is missed by JAX: at the next collective or after its heartbeat's time-out (100 s).
"""

import contextlib
import dataclasses
import itertools
import json
import math
import os
import re
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from scaling_jax import configuration
from scaling_jax.errors import InputError

COORDINATOR, PROCESSES, PROCESS = (
    "SCALING_JAX_COORDINATOR",
    "SCALING_JAX_PROCESSES",
    "SCALING_JAX_PROCESS",
)
TIMEOUT = "SCALING_JAX_COORDINATOR_TIMEOUT"
DEFAULT_TIMEOUT = 300.0
AUTO = "auto"
# Seconds that a process has to reach an error of its own once it knows of another's.
GRACE = 5.0
_SLURM = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID")
_FAILED = "scaling_jax/failed"
_TALK = itertools.count()
_ending = threading.Lock()


@dataclasses.dataclass(frozen=True)
class Group:
    """Which process of how many this is.

    Attributes:
        coordinator: "host:port" of process 0; None lets JAX ask the TPU's own service.
        count, index: of processes; None with that.
        local_device: the one device of its machine that this process has; None is all.
    """

    coordinator: str | None
    count: int | None = None
    index: int | None = None
    local_device: int | None = None


def add_arguments(parser: Any) -> None:
    """The flags by which a process of several is told who it is."""
    group = parser.add_argument_group(
        "several processes",
        "one run on several machines: the same command on each. Under Slurm's srun and on TPU pods nothing "
        "has to be said",
    )
    group.add_argument(
        "--coordinator", metavar="HOST:PORT", help=f"where process 0 listens; or {COORDINATOR}"
    )
    group.add_argument(
        "--processes", metavar="N", help=f"how many there are; or {PROCESSES}; 1 is this one alone"
    )
    group.add_argument("--process", metavar="I", help=f"which one this is, from 0; or {PROCESS}")
    group.add_argument(
        "--coordinator_timeout",
        metavar="SECONDS",
        help=f"how long to wait for the others, {DEFAULT_TIMEOUT:g} by default; or {TIMEOUT}",
    )


def group_in(arguments: Any, environment: Mapping[str, str] = os.environ) -> Group | None:
    """`group_of` the flags that `add_arguments` declares."""
    return group_of(arguments.coordinator, arguments.processes, arguments.process, environment)


def group_of(
    coordinator: str | None,
    processes: str | None,
    process: str | None,
    environment: Mapping[str, str] = os.environ,
) -> Group | None:
    """Which process of how many this is; None is one alone.

    What is not said is taken from Slurm, where this is a task of several that srun started, or from the
    TPU's own service. `processes` = 1 is one alone whatever the scheduler says.

    Args:
        coordinator, processes, process: of the flags, as text; None is not given.
        environment: has what the flags do not say.

    Raises:
        InputError: half of it is said, or what is said cannot be.
    """
    coordinator = coordinator or environment.get(COORDINATOR) or None
    processes = processes or environment.get(PROCESSES) or None
    process = process or environment.get(PROCESS) or None
    if processes == AUTO or (not (coordinator or processes or process) and _on_tpu_pod(environment)):
        return Group(None)
    local = None
    if all(name in environment for name in _SLURM) and environment["SLURM_NTASKS"] != "1":
        coordinator = coordinator or _slurm_address(environment)
        if processes is None and process is None:
            processes, process = environment["SLURM_NTASKS"], environment["SLURM_PROCID"]
            local = _slurm_device(environment)
    if processes is not None and _number("processes", processes, 1) == 1:
        return None
    given = {"coordinator": coordinator, "processes": processes, "process": process}
    if not any(given.values()):
        return None
    missing = [name for name, value in given.items() if value is None]
    if missing:
        names = {"coordinator": COORDINATOR, "processes": PROCESSES, "process": PROCESS}
        raise InputError(
            "several processes need --coordinator HOST:PORT, --processes N and --process I: missing "
            + ", ".join(f"--{name} ({names[name]})" for name in missing)
        )
    if not re.fullmatch(r".+:\d+", coordinator) or not 0 < int(coordinator.rpartition(":")[2]) < 65536:
        raise InputError(f"coordinator {coordinator!r}: HOST:PORT is needed, such as node1:8476")
    count, index = _number("processes", processes, 1), _number("process", process, 0)
    if index >= count:
        raise InputError(f"process {index} of {count} processes: they are counted from 0 to {count - 1}")
    return Group(coordinator, count, index, local)


def start(group: Group, seconds: float = DEFAULT_TIMEOUT) -> None:
    """Joins the other processes; call before anything of JAX is computed.

    Where they do not all come in time, the process ends with exit code 2 and says where it waited: JAX
    itself would abort.

    Raises:
        InputError: the coordinator's port is taken, or JAX finds nobody to ask.
    """
    import jax

    if group.index == 0 and group.coordinator is not None:
        _check_port(group)
    late = threading.Timer(seconds, _give_up, (group, seconds))
    late.daemon = True
    late.start()
    rest = int(seconds) + 60  # ours comes first
    try:
        if group.coordinator is None:
            jax.distributed.initialize(initialization_timeout=rest)
        else:
            jax.distributed.initialize(
                group.coordinator,
                group.count,
                group.index,
                local_device_ids=None if group.local_device is None else [group.local_device],
                cluster_detection_method="deactivate",
                initialization_timeout=rest,
            )
        jax.process_count()  # the devices of all become known, for which all have to be there
    except Exception as error:
        late.cancel()
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"processes cannot be joined at {_address(group)}: {reason}") from error
    late.cancel()


def _check_port(group: Group) -> None:
    """Refuses a port that somebody has: JAX's service may end the process by a segmentation fault there."""
    port = int(group.coordinator.rpartition(":")[2])
    family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
    try:
        socket.create_server(("", port), family=family, dualstack_ipv6=family == socket.AF_INET6).close()
    except OSError as error:
        raise InputError(f"processes cannot be joined at {group.coordinator}: {error.strerror}") from error


def _address(group: Group) -> str:
    return group.coordinator or _state().coordinator_address or "the TPU's own service"


def _give_up(group: Group, seconds: float) -> None:
    address = _address(group)
    if group.index == 0:
        said = f"not all of the {group.count} processes came to the coordinator {address} (this process)"
    else:
        said = f"the coordinator {address} (process 0) did not answer, or not all processes came to it"
    _say(
        f"{said} within {seconds:g} s: is process 0 running there, is the port free and open, does every "
        f"process have the same {PROCESSES}?"
    )
    os._exit(2)


@contextlib.contextmanager
def joined(arguments: Any, environment: Mapping[str, str] = os.environ) -> Iterator[None]:
    """Runs the block as one of several processes where flags or environment say so; alone it does nothing.

    Several end together: what stops one stops all, with its message and exit code.

    Raises:
        InputError: see `group_of`.
    """
    group = group_in(arguments, environment)
    if group is None:
        yield
        return
    start(group, timeout_of(arguments.coordinator_timeout, environment))
    watch = _Watch()
    watch.start()
    try:
        yield
    except SystemExit:  # agreed by all
        raise
    except BaseException as error:
        code = 2
        if isinstance(error, InputError):
            message = configuration.message(error)
        else:
            code = 130 if isinstance(error, KeyboardInterrupt) else 1
            message = f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"
            traceback.print_exc()
        end(message, code)
    finally:
        watch.stop()


def timeout_of(text: str | None, environment: Mapping[str, str] = os.environ) -> float:
    """Seconds to wait for the other processes.

    Raises:
        InputError: no positive number.
    """
    text = text or environment.get(TIMEOUT) or str(DEFAULT_TIMEOUT)
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise InputError(f"coordinator_timeout = {text!r}: seconds above 0")
    return seconds


def count() -> int:
    """How many processes there are."""
    return _state().num_processes if _several() else 1


def is_first() -> bool:
    """Whether this is the process that writes what all share."""
    return not _several() or _state().process_id == 0


def _several() -> bool:
    """Whether JAX's processes have been joined; asked without starting JAX."""
    return "jax._src.distributed" in sys.modules and _client() is not None


def on_first(work: Callable[[], Any]) -> Any:
    """What `work` returns on process 0, on every process; it is called there alone.

    Args:
        work: returns what JSON holds.

    Raises:
        InputError: `work` raised it; it is raised on every process.
    """
    if count() == 1:
        return work()
    outcome: dict[str, Any] = {}
    if is_first():
        try:
            outcome = {"value": work()}
        except InputError as error:
            outcome = {"error": configuration.message(error)}
    outcome = _from_first(outcome)
    if "error" in outcome:
        raise InputError(outcome["error"])
    return outcome["value"]


def from_all(value: Any, seconds: float = math.inf) -> list[Any]:
    """What every process gives, on every process, by process.

    Args:
        value: what JSON holds.
        seconds: how long the others may take.

    Raises:
        TimeoutError: a process took longer.
    """
    if count() == 1:
        return [value]
    name = f"scaling_jax/talk/{next(_TALK)}"
    _client().key_value_set(f"{name}/{_state().process_id}", json.dumps(value))
    until = time.monotonic() + seconds
    return [json.loads(_wait_for(f"{name}/{process}", until)) for process in range(count())]


def meet() -> None:
    """Waits until all processes are here.

    After something that takes one of them longer, such as compiling: collectives of CPUs give up after 30 s.
    """
    from_all(True)


class Stopping:
    """Whether a run has been asked to stop: SIGTERM came to this process or, of several, to any of them.

    Of several processes, all are told at the same `asked`, which each calls in the same order.
    """

    _steps = itertools.count()

    def __init__(self, received: list[int]):
        self._received = received
        self._stopped = False

    def asked(self) -> bool:
        """Whether to stop now."""
        if count() == 1:
            return bool(self._received)
        from jax.experimental import multihost_utils

        self._stopped |= multihost_utils.reached_preemption_sync_point(next(Stopping._steps))
        return self._stopped


@contextlib.contextmanager
def termination_noted() -> Iterator[Stopping]:
    """Notes SIGTERM instead of dying of it; outside the block the process ends as it did before.

    Of several processes JAX listens, from `start` on.
    """
    # In a thread, whoever owns the process listens.
    if count() > 1 or threading.current_thread() is not threading.main_thread():
        yield Stopping([])
        return
    received: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: received.append(number))
    try:
        yield Stopping(received)
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


class _Watch(threading.Thread):
    """Ends this process when another one has told of its failure."""

    def __init__(self):
        super().__init__(daemon=True)
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.wait(1.0):
            failed = _failures()
            if not failed:
                continue
            # Where all are refused for the same reason, each says so itself.
            if self._over.wait(GRACE):
                return
            process, (code, message) = next(iter(failed.items()))
            end(f"process {process} stopped: {message}", code)

    def stop(self) -> None:
        self._over.set()


def end(message: str, code: int) -> None:
    """Tells the other processes and ends this one at once: JAX's own way out waits minutes for those that
    will not come."""
    if not _ending.acquire(blocking=False):
        time.sleep(2 * GRACE)  # another thread is about it
    _say(message)
    with contextlib.suppress(Exception):
        _client().key_value_set(f"{_FAILED}/{_state().process_id}", json.dumps([code, message]))
        # The service lives in process 0: it stays until the others know.
        until = time.monotonic() + 2 * GRACE
        while _state().process_id == 0 and time.monotonic() < until:
            if len(_failures()) == _state().num_processes:
                break
            time.sleep(0.2)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _failures() -> dict[int, tuple[int, str]]:
    """(exit code, message) of the processes that have told of one."""
    try:
        found = _client().key_value_dir_get(_FAILED)
    except Exception:  # the service is gone: JAX itself ends the process
        return {}
    return {int(key.rpartition("/")[2]): tuple(json.loads(value)) for key, value in found}


def _from_first(value: Any) -> Any:
    name = f"scaling_jax/talk/{next(_TALK)}"
    if is_first():
        _client().key_value_set(name, json.dumps(value))
        return json.loads(json.dumps(value))
    return json.loads(_wait_for(name))


def _wait_for(name: str, until: float = math.inf) -> str:
    """A value that another process will give; the watch ends the waiting if it never will."""
    while True:
        left = min(until - time.monotonic(), 60.0)
        if left <= 0:
            raise TimeoutError(f"process {name.rpartition('/')[2]} does not answer")
        try:
            return _client().blocking_key_value_get(name, max(int(1000 * left), 1))
        except Exception as error:
            if "DEADLINE_EXCEEDED" not in str(error):
                raise


def _state() -> Any:
    # Private, and the only way to the service that jax.distributed starts; Orbax goes it too.
    from jax._src import distributed

    return distributed.global_state


def _client() -> Any:
    return _state().client


def _say(message: str) -> None:
    index = _state().process_id
    print(f"scaling-jax: process {index}: error: {message}", file=sys.stderr, flush=True)


def _number(name: str, text: str, least: int) -> int:
    if not re.fullmatch(r"\d+", text) or int(text) < least:
        raise InputError(f"{name} = {text!r}: a whole number, at least {least}")
    return int(text)


def _slurm_address(environment: Mapping[str, str]) -> str:
    """The first host of the step, and a port that follows from the job."""
    hosts = environment["SLURM_STEP_NODELIST"]
    prefix, numbers = re.match(r"([^,\[]+)(?:\[([^,\-\]]+))?", hosts).groups()
    port = 61440 + int(environment["SLURM_JOB_ID"]) % 4096
    return f"{prefix}{numbers or ''}:{port}"


def _slurm_device(environment: Mapping[str, str]) -> int | None:
    """The device of this task where a machine has several tasks and Slurm has not dealt them out itself."""
    nodes = environment.get("SLURM_STEP_NUM_NODES", environment.get("SLURM_NNODES", "1"))
    dealt = {"SLURM_GPUS_PER_TASK", "SLURM_TRES_PER_TASK"} & environment.keys()
    if dealt or int(environment["SLURM_NTASKS"]) <= int(nodes):
        return None
    return int(environment["SLURM_LOCALID"])


def _on_tpu_pod(environment: Mapping[str, str]) -> bool:
    """Whether this machine is one of several that hold a TPU slice."""
    if "cpu" in environment.get("JAX_PLATFORMS", ""):
        return False
    several = len([host for host in environment.get("TPU_WORKER_HOSTNAMES", "").split(",") if host]) > 1
    return (several or environment.get("MEGASCALE_NUM_SLICES", "1") != "1") and _has_tpu()


def _has_tpu() -> bool:
    return any(Path("/dev").glob("accel[0-9]*")) or any(Path("/dev/vfio").glob("[0-9]*"))
