"""Pods as queued resources, with a gcloud that plays two hosts: folders in which it does what it is told."""

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.launch.stand_ins import NASTY, ROOT, StandIns, launch

POD = ["--name", "pod", "--zone", "us-east5-b", "--type", "v6e-16", "--poll", "0"]
# The state of the queued resource is a file; `states` holds what comes next at every look.
GCLOUD = """
import pathlib, shutil, subprocess
home = pathlib.Path({home!r})
words = call["words"][2:]
state = home / "state"
if words[:2] == ["queued-resources", "create"]:
    assert not state.exists()
    state.write_text("WAITING_FOR_RESOURCES")
elif words[:2] == ["queued-resources", "delete"]:
    state.unlink()
elif words[:2] == ["queued-resources", "describe"]:
    if not state.exists():
        sys.exit("NOT_FOUND")
    coming = json.loads((home / "coming.json").read_text())
    print(state.read_text())
    if coming:
        state.write_text(coming.pop(0))
        (home / "coming.json").write_text(json.dumps(coming))
elif words[1] == "scp":
    for host in ("host0", "host1"):
        (home / host).mkdir(exist_ok=True)
        shutil.copy(words[2], home / host / words[3].partition(":")[2])
elif words[1] == "ssh":
    command = next(word for word in words if word.startswith("--command="))[len("--command="):]
    codes = [
        subprocess.run(["bash", "-c", command], cwd=home / host, env=dict(os.environ, HOME=str(home / host)))
        for host in ("host0", "host1")
    ]
    sys.exit(next((code.returncode for code in codes if code.returncode), 0))
"""
# `uv` makes an environment that has our command.
UV = """
import pathlib
if sys.argv[1] == "venv":
    folder = pathlib.Path(sys.argv[-1]) / "bin"
    folder.mkdir(parents=True)
    (folder / "activate").write_text("SETUP_ACTIVATED=yes; export SETUP_ACTIVATED")
    (folder / "python").write_text("#!/bin/sh")
    (folder / "python").chmod(0o755)
"""


@pytest.fixture
def stand_ins(tmp_path):
    made = StandIns(tmp_path)
    coming(tmp_path, "ACTIVE")
    made.add("gcloud", GCLOUD.format(home=str(tmp_path)))
    made.add("uv", UV)
    made.add("pkill", "sys.exit(1)")
    made.add("scaling-jax")
    return made


@pytest.fixture
def checkout(tmp_path):
    """A small checkout with a gin file that git does not know and a folder that it ignores."""
    folder = tmp_path / "checkout"
    shutil.copytree(ROOT / "launch", folder / "launch")
    (folder / ".gitignore").write_text("/runs/\n")
    (folder / "mine.gin").write_text("A = 1\n")
    (folder / "runs").mkdir()
    (folder / "runs" / "large").write_text("not to be sent")
    subprocess.run(["git", "init", "--quiet", folder], check=True)
    return folder


def coming(folder: Path, *states: str) -> None:
    (folder / "coming.json").write_text(json.dumps(states))


def run(stand_ins: StandIns, checkout: Path, *words: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [checkout / "launch" / "tpu_vm.sh", *POD, *words],
        env=stand_ins.environment(**environment),
        cwd=checkout,
        capture_output=True,
        text=True,
        timeout=120,
    )


def verbs(stand_ins: StandIns) -> list[str]:
    """What gcloud was asked for, without the looks at the state."""
    asked = [call["words"][3] for call in stand_ins.calls("gcloud")]
    return [word for word in asked if word != "describe"]


def test_a_run_from_asking_to_deleting(stand_ins, checkout, tmp_path):
    coming(tmp_path, "PROVISIONING", "ACTIVE")
    words = [
        "--spot",
        "--project",
        "mine",
        "--create=--labels=a=b",
        "--delete",
        "--setup",
        "export SETUP_A='b \"c\"'",
    ]
    ended = run(
        stand_ins, checkout, *words, "--", "scaling-jax", "pretrain", "--gin_file", "mine.gin", *NASTY
    )
    assert ended.returncode == 0, ended.stderr
    assert verbs(stand_ins) == ["create", "scp", "ssh", "ssh", "delete"]
    assert "tpu_vm.sh: pod is WAITING_FOR_RESOURCES\ntpu_vm.sh: pod is PROVISIONING\n" in ended.stderr

    [create] = [call["words"] for call in stand_ins.calls("gcloud") if call["words"][3] == "create"]
    place = ["--zone=us-east5-b", "--project=mine"]
    pod = ["--node-id=pod", "--accelerator-type=v6e-16", "--runtime-version=v2-alpha-tpuv6e"]
    assert create == [
        *"compute tpus queued-resources create pod".split(),
        *pod,
        *place,
        "--spot",
        "--labels=a=b",
    ]
    for call in stand_ins.calls("gcloud"):
        if call["words"][3] in ("ssh", "scp"):
            assert call["words"][2] == "tpu-vm" and {"--worker=all", *place} <= set(call["words"])

    installs = [call["words"] for call in stand_ins.calls("uv") if call["words"][0] == "pip"]
    options = ["--quiet", "--python", ".venv/bin/python", "-e", ".[tpu,text,scores]", "-c", "constraints.txt"]
    assert installs == [["pip", "install", *options]] * 2
    runs = stand_ins.calls("scaling-jax")
    assert [call["cwd"] for call in runs] == [
        str(tmp_path / host / "scaling_jax") for host in ("host0", "host1")
    ]
    for call in runs:
        assert call["words"] == ["pretrain", "--gin_file", "mine.gin", *NASTY]
        assert call["environment"] == {
            "SETUP_ACTIVATED": "yes",
            "SETUP_A": 'b "c"',
            "SCALING_JAX_PROCESSES": "auto",
        }
    assert (tmp_path / "host1" / "scaling_jax" / "mine.gin").exists()
    assert not (tmp_path / "host1" / "scaling_jax" / "runs").exists()


def test_a_pod_that_is_there_is_used_and_stays(stand_ins, checkout, tmp_path):
    (tmp_path / "state").write_text("ACTIVE")
    ended = run(stand_ins, checkout, "--", "scaling-jax", "pretrain")
    assert ended.returncode == 0
    assert verbs(stand_ins) == ["scp", "ssh", "ssh"]
    assert (
        "pod is still there and costs money: gcloud compute tpus queued-resources delete pod" in ended.stderr
    )


def test_a_preempted_pod_is_asked_for_again(stand_ins, checkout, tmp_path):
    """Taken away in the first run; the second ends well."""
    taken = f"""
import pathlib
home = pathlib.Path({str(tmp_path)!r})
if not (home / "taken").exists():
    (home / "state").write_text("SUSPENDED")
    (home / "taken").touch()
    sys.exit(1)
"""
    stand_ins.add("scaling-jax", taken)
    gcloud = GCLOUD.format(home=str(tmp_path)).replace(
        'state.write_text("WAITING_FOR_RESOURCES")', 'state.write_text("ACTIVE")'
    )
    stand_ins.add("gcloud", gcloud)
    ended = run(stand_ins, checkout, "--", "scaling-jax", "pretrain")
    assert ended.returncode == 0, ended.stderr
    assert verbs(stand_ins) == ["create", "scp", "ssh", "ssh", "delete", "create", "scp", "ssh", "ssh"]
    assert "attempt 1: pod was taken away (SUSPENDED); asking for it again" in ended.stderr


def test_a_pod_that_cannot_be_made_is_not_asked_for_again(stand_ins, checkout, tmp_path):
    coming(tmp_path, "FAILED")
    ended = run(stand_ins, checkout, "--", "scaling-jax", "pretrain")
    assert ended.returncode == 1
    assert verbs(stand_ins) == ["create"]
    assert (
        "tpu_vm.sh: pod is FAILED\ntpu_vm.sh: see gcloud compute tpus queued-resources describe"
        in ended.stderr
    )


@pytest.mark.parametrize("code, runs", [(143, 2), (255, 2), (2, 1), (7, 1)])
def test_what_is_started_again_and_what_is_not(stand_ins, checkout, tmp_path, code, runs):
    """A run that saved and a lost connection are; input that cannot be used and a failed run are not."""
    (tmp_path / "state").write_text("ACTIVE")
    stand_ins.add("scaling-jax", f"sys.exit({code})")
    ended = run(stand_ins, checkout, "--attempts", "2", "--", "scaling-jax", "pretrain")
    assert ended.returncode == (1 if runs == 2 else code)
    assert len(stand_ins.calls("scaling-jax")) == 2 * runs
    assert verbs(stand_ins) == ["scp", "ssh", "ssh"] * runs


def test_ctrl_c_lets_the_run_save(stand_ins, checkout, tmp_path):
    (tmp_path / "state").write_text("ACTIVE")
    stand_ins.add("scaling-jax", "import time\nprint('begun', flush=True)\ntime.sleep(60)")
    process = subprocess.Popen(
        [checkout / "launch" / "tpu_vm.sh", *POD, "--", "scaling-jax", "pretrain"],
        env=stand_ins.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout.readline() == "begun\n"
    os.killpg(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "ending the run on all hosts; pod stays" in stderr
    commands = [call["words"][-1] for call in stand_ins.calls("gcloud")]
    assert commands[-1] == "--command=bash scaling_jax/launch/tpu_host.sh stop"
    assert [call["words"] for call in stand_ins.calls("pkill")][-2:] == [["-TERM", "-x", "scaling-jax"]] * 2


def test_slices_are_reached_through_the_queued_resource(stand_ins):
    words = [*POD, "--slices", "4", "--delete", "--dry_run", "--", "scaling-jax", "pretrain"]
    shown = launch("tpu_vm", *words, stand_ins=stand_ins)
    everywhere = "--node=all --worker=all --batch-size=all --zone=us-east5-b"
    place = "--zone=us-east5-b"
    queued = "gcloud compute tpus queued-resources"
    lines = shown.stdout.splitlines()
    assert lines[0] == (
        f"{queued} create pod --node-count=4 --node-prefix=pod --accelerator-type=v6e-16 "
        f"--runtime-version=v2-alpha-tpuv6e {place}"
    )
    assert lines[1].startswith(f"(cd {ROOT} && git ls-files ")
    assert lines[2] == f"{queued} scp scaling_jax.tar.gz pod:scaling_jax.tar.gz {everywhere}"
    assert lines[3].startswith(f"{queued} ssh pod {everywhere} '--command=mkdir -p scaling_jax && tar -xzf ")
    assert lines[4] == (
        f"{queued} ssh pod {everywhere} "
        "'--command=bash scaling_jax/launch/tpu_host.sh run -- scaling-jax pretrain'"
    )
    assert lines[5] == f"{queued} delete pod {place} --force --quiet"
    assert len(lines) == 6 and not stand_ins.calls("gcloud")


def test_what_a_dry_run_prints_can_be_pasted(stand_ins, checkout, tmp_path):
    shown = run(stand_ins, checkout, "--dry_run", "--", "scaling-jax", "pretrain", *NASTY)
    assert shown.returncode == 0 and not stand_ins.calls("gcloud")
    pasted = ["bash", "-euc", shown.stdout]
    subprocess.run(pasted, env=stand_ins.environment(), cwd=tmp_path, check=True, capture_output=True)
    assert [call["words"] for call in stand_ins.calls("scaling-jax")] == [["pretrain", *NASTY]] * 2


def test_what_was_left_running_is_ended_first(stand_ins, tmp_path):
    host = tmp_path / "host" / "launch"
    host.mkdir(parents=True)
    shutil.copy(ROOT / "launch" / "tpu_host.sh", host)
    stand_ins.add("pkill")
    stand_ins.add(
        "pgrep", f"sys.exit(0 if open({str(stand_ins.calls_file)!r}).read().count('pgrep') < 2 else 1)"
    )
    began = subprocess.run([host / "tpu_host.sh", "stop"], env=stand_ins.environment(), timeout=60)
    assert began.returncode == 0
    assert [call["words"] for call in stand_ins.calls("pkill")] == [["-TERM", "-x", "scaling-jax"]]
    assert len(stand_ins.calls("pgrep")) == 2


@pytest.mark.parametrize(
    "words, message",
    [
        (["--type", "v9-8"], "--type v9-8: its runtime is not known here, give --runtime too"),
        (["--name", "Pod"], "--name Pod: lower-case letters, digits and -, a letter first"),
        (["--zone", ""], "--zone is needed (see --help)"),
        (["--slices", "0"], "--slices 0: a whole number from 1 is needed"),
    ],
)
def test_bad_options_ask_for_nothing(stand_ins, words, message):
    ended = launch("tpu_vm", *POD, *words, "--", "scaling-jax", "pretrain", stand_ins=stand_ins)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == f"tpu_vm.sh: error: {message}\n"
    assert not stand_ins.calls("gcloud")


def test_a_folder_that_git_does_not_know_is_refused(stand_ins, checkout):
    shutil.rmtree(checkout / ".git")
    ended = run(
        stand_ins, checkout, "--", "scaling-jax", "pretrain", GIT_CEILING_DIRECTORIES=str(checkout.parent)
    )
    assert ended.returncode == 2
    assert ended.stderr == f"tpu_vm.sh: error: {checkout} is no git checkout: what to send is not known\n"
