"""Who a process is: from flags, environment, Slurm or the TPU's own service."""

import pytest

from scaling_jax.errors import InputError
from scaling_jax.training import processes
from scaling_jax.training.processes import Group, group_of, timeout_of

SLURM = {
    "SLURM_JOB_ID": "5000",
    "SLURM_STEP_NODELIST": "node[007,010-012]",
    "SLURM_STEP_NUM_NODES": "4",
    "SLURM_NTASKS": "4",
    "SLURM_PROCID": "2",
    "SLURM_LOCALID": "0",
}


def test_alone():
    assert group_of(None, None, None, {}) is None
    assert group_of("a:1", "1", "0", {}) is None
    assert group_of(None, None, None, SLURM | {"SLURM_NTASKS": "1"}) is None
    assert group_of(None, None, None, SLURM | {processes.PROCESSES: "1"}) is None


def test_flags_come_before_the_environment():
    environment = {processes.COORDINATOR: "a:1", processes.PROCESSES: "2", processes.PROCESS: "1"}
    assert group_of(None, None, None, environment) == Group("a:1", 2, 1)
    assert group_of("b:2", "3", "0", environment) == Group("b:2", 3, 0)
    assert group_of(None, None, None, SLURM | environment) == Group("a:1", 2, 1)


@pytest.mark.parametrize(
    ("hosts", "address"),
    [
        ("node[007,010-012]", "node007:62344"),
        ("node[001-004]", "node001:62344"),
        ("first,second[1-3]", "first:62344"),
        ("alone", "alone:62344"),
    ],
)
def test_slurm(hosts, address):
    environment = SLURM | {"SLURM_STEP_NODELIST": hosts}
    assert group_of(None, None, None, environment) == Group(address, 4, 2)


def test_slurm_with_several_tasks_on_a_machine():
    packed = SLURM | {"SLURM_NTASKS": "8", "SLURM_STEP_NUM_NODES": "2", "SLURM_LOCALID": "3"}
    assert group_of(None, None, None, packed).local_device == 3
    assert group_of(None, None, None, packed | {"SLURM_GPUS_PER_TASK": "1"}).local_device is None
    assert group_of("other:1", None, None, packed) == Group("other:1", 8, 2, 3)


def test_tpu_pods(monkeypatch):
    hosts = {"TPU_WORKER_HOSTNAMES": "a,b"}
    monkeypatch.setattr(processes, "_has_tpu", lambda: True)
    assert group_of(None, None, None, hosts) == Group(None)
    assert group_of(None, None, None, {"MEGASCALE_NUM_SLICES": "2"}) == Group(None)
    assert group_of(None, "auto", None, {}) == Group(None)
    assert group_of(None, None, None, {"TPU_WORKER_HOSTNAMES": "a"}) is None
    assert group_of(None, None, None, hosts | {"JAX_PLATFORMS": "cpu"}) is None
    monkeypatch.setattr(processes, "_has_tpu", lambda: False)
    assert group_of(None, None, None, hosts) is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("a:1", None, None), "missing --processes .SCALING_JAX_PROCESSES., --process"),
        ((None, "2", "0"), "missing --coordinator"),
        (("a", "2", "0"), "coordinator 'a': HOST:PORT"),
        (("a:0", "2", "0"), "coordinator 'a:0': HOST:PORT"),
        (("a:1", "2", "2"), "process 2 of 2 processes"),
        (("a:1", "two", "0"), "processes = 'two': a whole number"),
        (("a:1", "2", "-1"), "process = '-1': a whole number"),
    ],
)
def test_what_cannot_be(given, message):
    with pytest.raises(InputError, match=message):
        group_of(*given, {})


def test_time_out():
    assert timeout_of(None, {}) == 300
    assert timeout_of(None, {processes.TIMEOUT: "5"}) == 5
    assert timeout_of("7.5", {processes.TIMEOUT: "5"}) == 7.5
    for text in ("0", "soon", "inf", "-1"):
        with pytest.raises(InputError, match="seconds above 0"):
            timeout_of(text, {})


def test_one_process_agrees_with_itself():
    assert processes.on_first(lambda: {"a": 1}) == {"a": 1}
    assert processes.from_all(3) == [3]
    with processes.termination_noted() as stopping:
        assert not stopping.asked()
