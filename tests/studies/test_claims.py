"""Claims: one holder at a time, whoever dies, on one machine and on several."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from scaling_jax.errors import InputError
from scaling_jax.studies import claims as claiming
from scaling_jax.studies.claims import Claims

HOLDER = """
import sys, time
from scaling_jax.studies.claims import Claims
with Claims(sys.argv[1]).held("run") as mine:
    print(mine, flush=True)
    time.sleep(60)
"""


def claims(folder, host=None, lost=None):
    """Claims that go stale in 100 s; who is taken for dead does not end the test."""
    return Claims(folder, 100, (lambda name: None) if lost is None else lost.append, host)


def grow_old(folder, name, seconds):
    """Makes a claim look as if its holder had given no sign for so long."""
    path = folder / name
    before = path.stat().st_mtime - seconds
    os.utime(path, (before, before))


def test_one_holder_at_a_time(tmp_path):
    one, two = claims(tmp_path), claims(tmp_path)
    with one.held("run") as mine:
        assert mine and not two.take("run")
        assert two.take("other")
        assert two.holder("run")["pid"] == os.getpid()
    assert two.take("run") and not one.take("run")
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["other.1", "run.1", "run.2"]


def test_on_one_machine_a_killed_holder_is_followed_at_once(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, env=environment
    )
    assert process.stdout.readline() == b"True\n"
    grow_old(tmp_path, "run.1", 10**6)  # while it lives, time does not count: its lock does
    assert not claims(tmp_path).take("run")
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert claims(tmp_path).take("run")


def test_on_another_machine_only_silence_tells(tmp_path):
    here, there = claims(tmp_path, "a 1"), claims(tmp_path, "b 2")
    assert here.take("run")
    grow_old(tmp_path, "run.1", 90)
    assert not there.take("run")
    here.renew()
    grow_old(tmp_path, "run.1", 90)
    assert not there.take("run"), "a sign was given in between"
    grow_old(tmp_path, "run.1", 20)
    assert there.take("run")


def test_a_machine_that_was_started_again_holds_nothing(tmp_path):
    before, after = claims(tmp_path, "a 1"), claims(tmp_path, "a 2")
    assert before.take("run")
    grow_old(tmp_path, "run.1", 101)
    assert after.take("run")


def test_who_was_taken_for_dead_ends(tmp_path):
    lost = []
    slow = claims(tmp_path, "a 1", lost)
    assert slow.take("run")
    slow.renew()
    assert lost == []
    grow_old(tmp_path, "run.1", 101)
    assert claims(tmp_path, "b 2").take("run")
    slow.renew()
    assert lost == ["run"]


@pytest.mark.parametrize("links", [True, False])
def test_of_many_at_once_one_takes_over(tmp_path, monkeypatch, links):
    if not links:

        def refuse(*paths):
            raise PermissionError("no links here")

        monkeypatch.setattr(os, "link", refuse)
    assert claims(tmp_path, "a 1").take("run")
    grow_old(tmp_path, "run.1", 101)
    others = [claims(tmp_path, f"b {number}") for number in range(16)]
    ready, taken = threading.Barrier(len(others)), []

    def rush(one):
        ready.wait()
        if one.take("run"):
            taken.append(one)

    threads = [threading.Thread(target=rush, args=(one,)) for one in others]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == 1
    assert not any(path.name.startswith(".") for path in tmp_path.iterdir())


def test_without_locks_silence_tells_on_the_same_machine_too(tmp_path, monkeypatch):
    def refuse(*arguments):
        raise OSError("no locks here")

    monkeypatch.setattr(claiming.fcntl, "flock", refuse)
    assert claims(tmp_path).take("run")
    assert not claims(tmp_path).take("run")
    grow_old(tmp_path, "run.1", 101)
    assert claims(tmp_path).take("run")


def test_the_clock_is_that_of_the_file_system(tmp_path, monkeypatch):
    assert claims(tmp_path, "a 1").take("run")
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert not claims(tmp_path, "b 2").take("run")


def test_signs_are_given_by_themselves(tmp_path):
    one = Claims(tmp_path, 1.0)
    assert one.take("run")
    grow_old(tmp_path, "run.1", 1000)
    deadline = time.monotonic() + 20
    while time.time() - (tmp_path / "run.1").stat().st_mtime > 500:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_stale_needs_a_time(tmp_path):
    with pytest.raises(InputError, match="above 0"):
        Claims(tmp_path, 0)
