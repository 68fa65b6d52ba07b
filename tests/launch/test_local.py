"""Several processes on this machine, with a command that stands in for a run."""

import os
import signal
import socket
import subprocess
import time

import pytest

from tests.launch.stand_ins import NASTY, ROOT, StandIns, launch

# Says what it caught and ends as our verbs do; `quick` ends by itself, and so does process 1 of `fail`, once
# the others are there to be ended.
RUN = """
import signal, time
from pathlib import Path
def caught(number, frame):
    os.write(1, f"caught {number}\\n".encode())  # print is not reentrant
    sys.exit(130 if number == signal.SIGINT else 143)
signal.signal(signal.SIGTERM, signal.SIG_IGN if "stubborn" in sys.argv else caught)
if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as Python's own handler
    signal.signal(signal.SIGINT, caught)
process = os.environ.get("SCALING_JAX_PROCESS")
Path(sys.argv[0] + f".begun{process}").touch()
print("begun", process, flush=True)
print("a word of warning", file=sys.stderr, flush=True)
if "quick" in sys.argv:
    sys.exit(0)
if "fail" in sys.argv and process == "1":
    while len(list(Path(sys.argv[0]).parent.glob("*.begun*"))) < int(os.environ["SCALING_JAX_PROCESSES"]):
        time.sleep(0.01)
    sys.exit(7)
time.sleep(60)
"""


@pytest.fixture
def stand_ins(tmp_path):
    made = StandIns(tmp_path)
    made.add("scaling-jax", RUN)
    return made


def started(stand_ins: StandIns, *words: str) -> subprocess.Popen:
    """A launcher whose two processes have begun."""
    process = subprocess.Popen(
        [str(ROOT / "launch" / "local.sh"), "--processes", "2", *words],
        env=stand_ins.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    for _ in range(2):
        assert "begun" in process.stdout.readline()
    return process


def test_processes_learn_who_they_are_and_get_every_word(stand_ins):
    ended = launch("local", "--processes", "2", "--", "scaling-jax", "quick", *NASTY, stand_ins=stand_ins)
    assert ended.returncode == 0, ended.stderr
    calls = stand_ins.calls("scaling-jax")
    assert [call["words"] for call in calls] == [["quick", *NASTY]] * 2
    told = sorted((call["environment"] for call in calls), key=lambda told: told["SCALING_JAX_PROCESS"])
    host, _, port = told[0]["SCALING_JAX_COORDINATOR"].partition(":")
    assert host == "127.0.0.1" and 12300 <= int(port) < 12400
    assert told == [
        {
            "SCALING_JAX_COORDINATOR": f"{host}:{port}",
            "SCALING_JAX_PROCESSES": "2",
            "SCALING_JAX_PROCESS": who,
        }
        for who in ("0", "1")
    ]
    assert sorted(ended.stdout.splitlines()) == ["[0] begun 0", "[1] begun 1"]
    assert sorted(ended.stderr.splitlines()) == ["[0] a word of warning", "[1] a word of warning"]


def test_one_process_is_told_nothing(stand_ins):
    assert launch("local", "--", "scaling-jax", "quick", stand_ins=stand_ins).returncode == 0
    assert [call["environment"] for call in stand_ins.calls("scaling-jax")] == [{}]


def test_what_a_dry_run_prints_can_be_pasted(stand_ins):
    words = [
        "--processes",
        "2",
        "--cpu_devices",
        "4",
        "--port",
        "12399",
        "--",
        "scaling-jax",
        "quick",
        *NASTY,
    ]
    shown = launch("local", "--dry_run", *words, stand_ins=stand_ins)
    assert shown.returncode == 0 and not stand_ins.calls("scaling-jax")
    assert shown.stdout.splitlines()[0].startswith(
        "env SCALING_JAX_COORDINATOR=127.0.0.1:12399 SCALING_JAX_PROCESSES=2 SCALING_JAX_PROCESS=0 "
        "JAX_PLATFORMS=cpu JAX_NUM_CPU_DEVICES=4 scaling-jax quick "
    )
    subprocess.run(["bash", "-c", shown.stdout], env=stand_ins.environment(), check=True, capture_output=True)
    pasted = stand_ins.calls("scaling-jax")
    stand_ins.calls_file.unlink()
    assert launch("local", *words, stand_ins=stand_ins).returncode == 0

    def by_process(calls):
        return sorted(
            ((call["words"], call["environment"]) for call in calls),
            key=lambda told: told[1]["SCALING_JAX_PROCESS"],
        )

    assert by_process(pasted) == by_process(stand_ins.calls("scaling-jax"))
    assert len(pasted) == 2 and pasted[0]["words"] == ["quick", *NASTY]


def test_a_failure_ends_the_others_and_is_returned(stand_ins):
    ended = launch("local", "--processes", "3", "--", "scaling-jax", "fail", stand_ins=stand_ins)
    assert ended.returncode == 7
    assert "local.sh: process 1 ended with exit code 7" in ended.stderr
    assert {"[0] caught 15", "[2] caught 15"} <= set(ended.stdout.splitlines())


def test_those_that_do_not_end_are_killed_after_the_grace(stand_ins):
    began = time.monotonic()
    words = ["--processes", "2", "--grace", "1", "--", "scaling-jax", "fail", "stubborn"]
    ended = launch("local", *words, stand_ins=stand_ins)
    assert ended.returncode == 7
    assert "process 0 ended with exit code 137" in ended.stderr
    assert all(line.startswith(("local.sh: ", "[0] ", "[1] ")) for line in ended.stderr.splitlines())
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_reach_every_process(stand_ins, number, code):
    process = started(stand_ins, "--", "scaling-jax", "wait")
    os.kill(process.pid, number)
    stdout, _ = process.communicate(timeout=60)
    assert process.returncode == code
    assert sorted(stdout.splitlines()) == [f"[0] caught {number}", f"[1] caught {number}"]


def test_ctrl_c_in_a_terminal_ends_all(stand_ins):
    process = started(stand_ins, "--", "scaling-jax", "wait")
    os.killpg(process.pid, signal.SIGINT)
    stdout, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert sorted(stdout.splitlines()) == ["[0] caught 2", "[1] caught 2"]


def test_gpus_are_divided_among_the_processes(stand_ins):
    stand_ins.add("nvidia-smi", "print('0\\n1\\n2\\n3')")
    run = ["--dry_run", "--", "scaling-jax", "pretrain"]

    def visible(*words, **environment):
        shown = launch("local", *words, *run, stand_ins=stand_ins, **environment)
        lines = shown.stdout.splitlines()
        return [part.partition("=")[2] for line in lines for part in line.split() if part.startswith("CUDA")]

    assert visible("--processes", "2") == ["0,1", "2,3"]
    assert visible("--processes", "4", "--gpus", "4,5,6,7") == ["4", "5", "6", "7"]
    assert visible("--processes", "2", CUDA_VISIBLE_DEVICES="1,3") == ["1", "3"]
    assert visible("--processes", "2", CUDA_VISIBLE_DEVICES="-1") == []
    assert visible("--processes", "2", CUDA_VISIBLE_DEVICES="") == []
    assert visible("--processes", "2", "--cpu_devices", "1") == []
    refused = launch("local", "--processes", "3", *run, stand_ins=stand_ins)
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1
    assert "4 GPUs (0,1,2,3) cannot be divided among 3 processes" in refused.stderr


def test_shards_are_runs_of_their_own(stand_ins):
    words = ["--shards", "3", "--", "scaling-jax", "study", "quick", *NASTY]
    assert launch("local", *words, stand_ins=stand_ins).returncode == 0
    calls = sorted(stand_ins.calls("scaling-jax"), key=lambda call: call["words"])
    assert [call["words"] for call in calls] == [
        ["study", "quick", *NASTY, "--shard", f"{part}/3"] for part in (1, 2, 3)
    ]
    assert [call["environment"] for call in calls] == [{}] * 3


def test_a_shard_that_fails_ends_no_other(stand_ins):
    stand_ins.add("scaling-jax", "import time\nif sys.argv[-1] == '1/2': sys.exit(9)\ntime.sleep(0.5)")
    ended = launch("local", "--shards", "2", "--", "scaling-jax", "study", stand_ins=stand_ins)
    assert ended.returncode == 9
    assert "process 0 ended with exit code 9" in ended.stderr and "process 1" not in ended.stderr


def test_a_port_in_use_is_refused(stand_ins):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        words = ["--processes", "2", "--port", port, "--", "scaling-jax", "quick"]
        ended = launch("local", *words, stand_ins=stand_ins)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == (
        f"local.sh: error: port {port} is in use: give another --port, or none to have a free one taken\n"
    )
    assert not stand_ins.calls("scaling-jax")


@pytest.mark.parametrize(
    "words, message",
    [
        (
            ["--processes", "2", "--shards", "2", "--", "scaling-jax", "study"],
            "give --processes (one run) or",
        ),
        (["--gpus", "0", "--cpu_devices", "2", "--", "x"], "give --gpus or --cpu_devices, not both"),
        (["--processes", "0", "--", "x"], "--processes 0: a whole number from 1 is needed"),
        (["--port", "70000", "--", "x"], "--port 70000: 1 to 65535"),
        (["--grace", "-1", "--", "x"], "--grace -1: a whole number from 0 is needed"),
    ],
)
def test_bad_options_start_nothing(words, message):
    ended = launch("local", *words)
    assert ended.returncode == 2 and ended.stderr.count("\n") == 1
    assert ended.stderr.startswith(f"local.sh: error: {message}")
