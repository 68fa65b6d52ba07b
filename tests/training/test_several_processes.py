"""One run on several meshes and in several processes: the same losses, whoever is killed, and no hang."""

import random
import shutil
import signal
import socket
import subprocess
import time

import numpy as np
import pytest

from tests.training import several

MESHES = ((8, 1, 1), (2, 4, 1), (2, 2, 2), (1, 1, 8))
slow = pytest.mark.slow


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    """A folder with stores, and runs of one device: base/ pretrained, lora/ tuned."""
    folder = tmp_path_factory.mktemp("several")
    several.write_stores(folder)
    several.run(several.pretraining(folder, folder / "base"), devices=1)
    several.run(several.finetuning(folder, folder / "lora", folder / "base/checkpoints/1280"), devices=1)
    return folder


def command(room, kind, out, *bindings):
    if kind == "base":
        return several.pretraining(room, out, *bindings)
    return several.finetuning(room, out, room / "base/checkpoints/1280", *bindings)


def same_losses(found, room, kind):
    wanted = several.losses(several.record(room / kind))
    np.testing.assert_allclose(several.losses(found), wanted, rtol=1e-5)
    assert len(wanted) == 21 and len({train for train, _ in wanted}) == 21


@slow
@pytest.mark.parametrize("kind", ["base", "lora"])
@pytest.mark.parametrize("mesh", MESHES)
def test_eight_devices_give_the_losses_of_one(room, tmp_path, mesh, kind):
    found = several.run(command(room, kind, tmp_path / "run", *several.layout(*mesh)))
    assert list(found["environment"]["mesh"].values()) == list(mesh)
    same_losses(found, room, kind)


@slow
@pytest.mark.parametrize(("mesh", "kind"), [((2, 2, 2), "base"), ((1, 1, 8), "base"), ((2, 4, 1), "lora")])
def test_two_processes_give_the_losses_of_one_device(room, tmp_path, mesh, kind):
    arguments = command(room, kind, tmp_path / "run", *several.layout(*mesh))
    found = several.run(arguments, processes=2, devices=4)
    assert found["environment"]["process_count"] == 2 and found["environment"]["device_count"] == 8
    same_losses(found, room, kind)
    if kind == "base":  # and its checkpoint is read by one process on one device
        base = tmp_path / "run/checkpoints/1280"
        tuned = several.run(several.finetuning(room, tmp_path / "tuned", base), devices=1)
        assert tuned["results"]["start_dev_loss"] == pytest.approx(
            several.record(room / "lora")["results"]["start_dev_loss"], rel=1e-5
        )


def at_step(process, step):
    """Waits until process 0 has said that a step was evaluated."""
    for line in process.stdout:
        if line.startswith("step") and int(line.split()[1]) >= step:
            return
    raise AssertionError(process.stderr.read()[-3000:])


@slow
def test_a_killed_process_ends_all_and_another_mesh_goes_on(room, tmp_path):
    out = tmp_path / "run"
    arguments = several.pretraining(room, out, *several.layout(2, 2, 2))
    first, second = started = several.start(arguments, processes=2, devices=4)
    step = random.randrange(4, 18)
    at_step(first, step)
    second.send_signal(signal.SIGKILL)
    codes = [code for code, _, _ in several.ended(started)]
    assert codes[1] == -signal.SIGKILL and codes[0] not in (0, None)
    assert not (out / "record.json").exists()

    moved = several.pretraining(room, out, *several.layout(4, 2, 1))
    ((code, _, error),) = several.ended(several.start(moved))
    assert code == 2 and "--resume_elsewhere" in error and len(error.strip().splitlines()) == 1
    found = several.run([*moved[:1], "--resume_elsewhere", *moved[1:]])
    same_losses(found, room, "base")
    (move,) = found["resumed_elsewhere"]
    assert 0 < move["step"] <= step + 2 and move["step"] % 3 == 0
    assert (move["from"]["process_count"], move["to"]["process_count"]) == (2, 1)
    assert move["from"]["mesh"] == {"data": 2, "fsdp": 2, "tensor": 2}
    assert not (out / "resume").exists()


@slow
def test_sigterm_to_any_process_saves_and_the_same_command_goes_on(room, tmp_path):
    out = tmp_path / "run"
    arguments = several.pretraining(
        room, out, *several.layout(2, 4, 1), "PretrainSettings.checkpoint_interval=0"
    )
    first, second = started = several.start(arguments, processes=2, devices=4)
    at_step(first, 5)
    second.send_signal(signal.SIGTERM)
    assert [code for code, _, _ in several.ended(started)] == [143, 143]
    (saved,) = (out / "resume").iterdir()
    assert 5 <= int(saved.name) < 20
    found = several.run(arguments, processes=2, devices=4)
    assert found["resumed_elsewhere"] == []
    same_losses(found, room, "base")


@slow
def test_the_launcher_starts_stops_and_goes_on(room, tmp_path):
    """As a user would: `launch/local.sh`, SIGTERM to it in the middle, the same command again."""
    out = tmp_path / "run"
    arguments = several.pretraining(
        room, out, *several.layout(2, 4, 1), "PretrainSettings.checkpoint_interval=0"
    )
    launcher = several.launched(arguments, processes=2, devices=4)
    for line in launcher.stdout:
        if line.startswith("[0] step") and int(line.split()[2]) >= 5:
            launcher.send_signal(signal.SIGTERM)
            break
    ((code, _, error),) = several.ended([launcher])
    assert code == 143, error[-3000:]
    (saved,) = (out / "resume").iterdir()
    assert 5 <= int(saved.name) < 20
    ((code, printed, error),) = several.ended([several.launched(arguments, processes=2, devices=4)])
    assert code == 0, error[-3000:]
    assert not [line for line in printed.splitlines() if line.startswith("[1] step")]
    found = several.record(out)
    assert found["environment"]["process_count"] == 2 and found["environment"]["device_count"] == 8
    same_losses(found, room, "base")


def refused(processes):
    """The one line that every process of a run was refused with."""
    lines = []
    for code, out, error in several.ended(processes):
        assert code == 2, f"{out[-500:]}\n{error[-2000:]}"
        lines += [line for line in error.splitlines() if line.startswith("scaling-jax")]
    assert len(lines) == len(processes)
    return lines


@slow
def test_what_is_refused_is_refused_by_every_process(room, tmp_path):
    wrong = tmp_path / "another"
    shutil.copytree(room / "base/checkpoints/1280", wrong)
    about = (wrong / "about.json").read_text()
    (wrong / "about.json").write_text(about.replace('"feed_forward_dim": 24', '"feed_forward_dim": 32'))
    (tmp_path / "file").write_text("")
    for arguments, told in (
        (
            several.pretraining(room, tmp_path / "a", *several.layout(3, 1, 1)),
            "data 3 x fsdp 1 x tensor 1 does not give the 8 devices",
        ),
        (
            several.pretraining(
                room, tmp_path / "a", *several.layout(1, 1, 8), "tiny/decoder_config.heads=4"
            ),
            "model 'tiny': heads 4 is not divided by Layout tensor 8: tensor = 1, 2, 4 would do",
        ),
        (several.finetuning(room, tmp_path / "a", wrong), "another is of another model: misshapen"),
        (several.pretraining(room, tmp_path / "file/run"), "cannot write"),
    ):
        for line in refused(several.start(arguments, processes=2, devices=4)):
            assert told in line
        assert not (tmp_path / "a").exists()


@slow
def test_what_one_process_is_refused_for_ends_the_others(room, tmp_path):
    arguments = several.pretraining(room, tmp_path / "run")
    differing = ([], [f"--gin.PretrainRun.store={tmp_path}/nowhere"])
    lines = refused(several.start(arguments, processes=2, devices=4, differing=differing))
    assert "process 1: error:" in lines[1] and "nowhere" in lines[1]
    assert "process 0: error: process 1 stopped: " in lines[0] and "nowhere" in lines[0]


@pytest.fixture
def full(tmp_path):
    """A file system with room for a little."""
    place = tmp_path / "full"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96k", "tmpfs", place], capture_output=True)
    if mounted.returncode:
        pytest.skip("a small file system can only be mounted by root")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


@slow
def test_a_full_disk_is_said_by_every_process(room, full):
    arguments = several.pretraining(room, full / "run")
    for line in refused(several.start(arguments, processes=2, devices=4)):
        assert "cannot write" in line and "No space left on device" in line


def test_a_coordinator_that_never_answers(tmp_path):
    """Of two processes, one comes: the first waits for the second, the second for the first. A third one
    is to listen where somebody else does."""
    began = time.monotonic()
    taken = socket.socket(socket.AF_INET6)
    taken.bind(("::", 0))
    taken.listen()
    ports = (several.free_port(), several.free_port(), taken.getsockname()[1])
    started = [
        several.start(
            several.pretraining(tmp_path, tmp_path / "run"),
            devices=1,
            SCALING_JAX_COORDINATOR=f"localhost:{port}",
            SCALING_JAX_PROCESSES="2",
            SCALING_JAX_PROCESS=str(process),
            SCALING_JAX_COORDINATOR_TIMEOUT=seconds,
        )[0]
        for process, port, seconds in zip((0, 1, 0), ports, ("2", "2", "300"), strict=True)
    ]
    first, second, third = refused(started)
    taken.close()
    assert f"not all of the 2 processes came to the coordinator localhost:{ports[0]}" in first
    assert f"the coordinator localhost:{ports[1]} (process 0) did not answer" in second and "2 s" in second
    assert f"processes cannot be joined at localhost:{ports[2]}" in third
    assert time.monotonic() - began < several.SECONDS
    assert not (tmp_path / "run").exists()
