"""Workloads for GKE, with an xpk that writes down how it was called."""

import json
import re
import subprocess

import pytest
import yaml

from tests.launch.stand_ins import NASTY, ROOT, StandIns, launch

POD_SCRIPT = "/opt/scaling_jax/launch/gke_pod.sh"  # where the Dockerfile puts the checkout
BASE = [
    "--cluster",
    "lab",
    "--name",
    "base",
    "--device",
    "v5litepod-256",
    "--image",
    "registry/scaling_jax:tpu",
]


@pytest.fixture
def stand_ins(tmp_path):
    made = StandIns(tmp_path)
    made.add("xpk")
    made.add("scaling-jax")
    return made


def submitted(stand_ins: StandIns, *words: str) -> list[dict[str, str]]:
    """Options of every workload that xpk was asked to create."""
    ended = launch("gke", *words, stand_ins=stand_ins)
    assert ended.returncode == 0, ended.stderr
    calls = stand_ins.calls("xpk")
    assert all(call["words"][:2] == ["workload", "create"] for call in calls)
    return [dict(word.removeprefix("--").split("=", 1) for word in call["words"][2:]) for call in calls]


# What xpk 1.16 makes of a command: a block of YAML, in which bash passes SIGTERM to what it has started.
CONTAINER = """
command:
- bash
- -c
- |
  _sigterm() (kill -SIGTERM $! 2>/dev/null;);
  trap _sigterm SIGTERM;
  (%s) & PID=$!;
  while kill -0 $PID 2>/dev/null;
      do sleep 0.1;
  done;
  wait $PID;
  exit $?
"""


def container(command: str) -> list[str]:
    """The words of a workload's container, after YAML and Kubernetes have read them."""
    text = yaml.safe_load(CONTAINER.replace("%s", command))["command"][2]
    text = re.sub(r"\$\$|\$\((\w+)\)", lambda found: "expanded" if found[1] else "$", text)
    return ["bash", "-c", text.replace(POD_SCRIPT, str(ROOT / "launch" / "gke_pod.sh"))]


def played(stand_ins: StandIns, command: str, **environment: str) -> subprocess.CompletedProcess:
    """Runs a workload's container to its end."""
    variables = stand_ins.environment(**environment)
    return subprocess.run(container(command), env=variables, text=True, capture_output=True, timeout=60)


def test_the_options_of_a_run(stand_ins):
    words = [
        "--slices",
        "2",
        "--storage",
        "shared",
        "--zone",
        "us-east5-b",
        "--project=mine",
        "--xpk=--priority=high",
    ]
    [options] = submitted(stand_ins, *BASE, *words, "--", "scaling-jax", "pretrain")
    assert options == {
        "workload": "base",
        "cluster": "lab",
        "device-type": "v5litepod-256",
        "num-slices": "2",
        "num-nodes": "1",
        "max-restarts": "100",
        "termination-grace-period-seconds": "300",
        "docker-image": "registry/scaling_jax:tpu",
        "storage": "shared",
        "zone": "us-east5-b",
        "project": "mine",
        "priority": "high",
        "command": f"exec bash {POD_SCRIPT} -- scaling-jax pretrain",
    }


def test_a_base_image_takes_this_folder_along(stand_ins, tmp_path):
    (tmp_path / "mine.gin").write_text("")
    words = ["--cluster", "lab", "--name", "base", "--device", "v6e-16", "--base_image", "i", "--"]
    command = ["scaling-jax", "pretrain", "--gin_file", "mine.gin"]
    assert launch("gke", *words, *command, stand_ins=stand_ins, cwd=tmp_path).returncode == 0
    called = stand_ins.calls("xpk")[0]["words"]
    assert {"--base-docker-image=i", f"--script-dir={tmp_path}"} <= set(called)


def test_every_word_arrives(stand_ins):
    words = ["--setup", "export SETUP_A='b \"c\"'", "--", "scaling-jax", "pretrain", *NASTY]
    [options] = submitted(stand_ins, *BASE, *words)
    ended = played(stand_ins, options["command"])
    assert ended.returncode == 0, ended.stderr
    [call] = stand_ins.calls("scaling-jax")
    assert call["words"] == ["pretrain", *NASTY]
    assert call["environment"] == {"SETUP_A": 'b "c"'}
    # For GPUs xpk writes the command into a value between double quotes too, which must stay one.
    assert yaml.safe_load(f'value: "{options["command"]}"')


def test_gpu_nodes_learn_who_they_are(stand_ins):
    words = ["--cluster", "lab", "--name", "base", "--device", "h100-80gb-8", "--image", "i", "--nodes", "2"]
    [options] = submitted(stand_ins, *words, "--", "scaling-jax", "pretrain")
    given = {"NNODES": "2", "NODE_RANK": "1", "JAX_COORDINATOR_ADDRESS": "base-slice-job-0-0.base"}
    assert played(stand_ins, options["command"], **given, JAX_COORDINATOR_PORT="6002").returncode == 0
    told = stand_ins.calls("scaling-jax")[0]["environment"]
    assert {name: value for name, value in told.items() if name.startswith("SCALING_JAX")} == {
        "SCALING_JAX_COORDINATOR": "base-slice-job-0-0.base:6002",
        "SCALING_JAX_PROCESSES": "2",
        "SCALING_JAX_PROCESS": "1",
    }


@pytest.mark.parametrize("code", [0, 2, 143])
def test_the_exit_code_of_the_run_is_that_of_the_container(stand_ins, code):
    stand_ins.add("scaling-jax", f"sys.exit({code})")
    [options] = submitted(stand_ins, *BASE, "--", "scaling-jax", "pretrain")
    assert played(stand_ins, options["command"]).returncode == code


def test_the_end_of_a_pod_reaches_the_run(stand_ins):
    # Not print: the signal may come while "begun" is being printed.
    caught = "def caught(*_):\n    os.write(1, b'caught\\n')\n    sys.exit(143)\n"
    run = "import signal, time\n" + caught + "signal.signal(signal.SIGTERM, caught)\n"
    stand_ins.add("scaling-jax", run + "print('begun', flush=True)\ntime.sleep(60)")
    [options] = submitted(stand_ins, *BASE, "--", "scaling-jax", "pretrain")
    pod = subprocess.Popen(
        container(options["command"]), env=stand_ins.environment(), stdout=subprocess.PIPE, text=True
    )
    assert pod.stdout.readline() == "begun\n"
    pod.terminate()
    stdout, _ = pod.communicate(timeout=50)
    assert (pod.returncode, stdout) == (143, "caught\n")


def test_a_study_is_a_set_of_workloads(stand_ins):
    options = submitted(
        stand_ins, *BASE, "--shards", "3", "--", "scaling-jax", "study", "--out", "/shared/zhang"
    )
    assert [(each["workload"], each["command"].partition(" -- ")[2]) for each in options] == [
        (f"base-{part}", f"scaling-jax study --out /shared/zhang --shard {part}/3") for part in (1, 2, 3)
    ]


def test_what_a_dry_run_prints_can_be_pasted(stand_ins):
    words = [*BASE, "--shards", "2", "--setup", 'echo "$HOME"', "--", "scaling-jax", "study", *NASTY]
    shown = launch("gke", "--dry_run", *words, stand_ins=stand_ins)
    assert shown.returncode == 0 and not stand_ins.calls("xpk")
    assert shown.stdout.startswith(
        "xpk workload create --workload=base-1 --cluster=lab --device-type=v5litepod-256 "
    )
    subprocess.run(["bash", "-c", shown.stdout], env=stand_ins.environment(), check=True)
    pasted = [json.dumps(call["words"]) for call in stand_ins.calls("xpk")]
    stand_ins.calls_file.unlink()
    submitted(stand_ins, *words)
    assert pasted == [json.dumps(call["words"]) for call in stand_ins.calls("xpk")]
    assert len(pasted) == 2


@pytest.mark.parametrize(
    "words, message",
    [
        (["--name", "Base"], "--name Base: up to 30 lower-case letters, digits and -, a letter first"),
        (["--base_image", "other"], "give --image or --base_image, not both"),
        (["--image", ""], "--image or --base_image is needed (see --help)"),
        (["--cluster", ""], "--cluster is needed (see --help)"),
    ],
)
def test_bad_options_create_nothing(stand_ins, words, message):
    ended = launch("gke", *BASE, *words, "--", "scaling-jax", "pretrain", stand_ins=stand_ins)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == f"gke.sh: error: {message}\n"
    assert not stand_ins.calls("xpk")
