"""Jobs for Slurm, with sbatch, srun and scontrol that write down how they were called."""

import subprocess
import textwrap

import pytest

from tests.launch.stand_ins import NASTY, StandIns, launch

# Starts its words once, as srun does: no shell in between. Options of its own come first.
SRUN = """
words = sys.argv[1:]
while words[0].startswith("-"):
    words.pop(0)
os.execvp(words[0], words)
"""


@pytest.fixture
def stand_ins(tmp_path):
    made = StandIns(tmp_path)
    made.add("sbatch", "print('Submitted batch job 7')", stdin=True)
    made.add("srun", SRUN)
    made.add("scontrol")
    made.add("scaling-jax")
    return made


def submitted(stand_ins: StandIns, *words: str) -> str:
    """The job script that sbatch was given."""
    ended = launch("slurm", *words, stand_ins=stand_ins)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "Submitted batch job 7\n"
    [call] = stand_ins.calls("sbatch")
    assert call["words"] == []
    return call["stdin"]


def played(stand_ins: StandIns, script: str, **environment: str) -> int:
    """Runs a job script as Slurm would run it on the first node."""
    variables = stand_ins.environment(SLURM_JOB_ID="7", **environment)
    return subprocess.run(["bash"], input=script, text=True, env=variables, timeout=60).returncode


def test_the_script_of_a_run(stand_ins):
    words = ["--nodes", "4", "--gpus_per_node", "8", "--cpus_per_process", "6", "--time", "24:00:00"]
    words += [
        "--name",
        "base",
        "--partition",
        "a100",
        "--account=lab",
        "--sbatch=--qos=high",
        "--sbatch",
        "--mem=0",
    ]
    words += [
        "--setup",
        "module load cuda",
        "--setup",
        "export SETUP_A='b c'",
        "--grace",
        "600",
        "--",
        "scaling-jax",
    ]
    expected = """\
        #!/bin/bash
        #SBATCH --job-name=base
        #SBATCH --output=base-%j.log
        #SBATCH --open-mode=append
        #SBATCH --nodes=4
        #SBATCH --ntasks-per-node=8
        #SBATCH --gpus-per-node=8
        #SBATCH --cpus-per-task=6
        #SBATCH --time=24:00:00
        #SBATCH --partition=a100
        #SBATCH --account=lab
        #SBATCH --requeue
        #SBATCH --signal=TERM@600
        #SBATCH --qos=high
        #SBATCH --mem=0

        module load cuda
        export SETUP_A='b c'
        cancelled=''
        trap 'cancelled=1' TERM
        srun --kill-on-bad-exit=0 --wait=600 --cpus-per-task=6 scaling-jax pretrain
        """
    script = submitted(stand_ins, *words, "pretrain")
    assert script.startswith(textwrap.dedent(expected))
    stand_ins.calls_file.unlink()
    shown = launch("slurm", "--dry_run", *words, "pretrain", stand_ins=stand_ins)
    assert shown.stdout == f"sbatch <<'JOB'\n{script}JOB\n"
    assert not stand_ins.calls("sbatch")
    subprocess.run(["bash", "-c", shown.stdout], env=stand_ins.environment(), check=True, capture_output=True)
    assert stand_ins.calls("sbatch")[0]["stdin"] == script


def test_every_word_arrives(stand_ins):
    script = submitted(
        stand_ins, "--setup", "export SETUP_A='b \"c\"'", "--", "scaling-jax", "pretrain", *NASTY
    )
    assert played(stand_ins, script) == 0
    [call] = stand_ins.calls("scaling-jax")
    assert call["words"] == ["pretrain", *NASTY]
    assert call["environment"] == {"SETUP_A": 'b "c"'}
    assert not stand_ins.calls("scontrol")


def test_a_study_is_an_array(stand_ins):
    script = submitted(stand_ins, "--shards", "16", "--", "scaling-jax", "study", "--out", "/shared/a b")
    assert "#SBATCH --array=1-16\n" in script and "#SBATCH --output=scaling_jax-%A_%a.log\n" in script
    assert played(stand_ins, script, SLURM_ARRAY_TASK_ID="3") == 0
    [call] = stand_ins.calls("scaling-jax")
    assert call["words"] == ["study", "--out", "/shared/a b", "--shard", "3/16"]


@pytest.mark.parametrize(
    "code, queued_again", [(0, False), (1, False), (2, False), (137, False), (143, True)]
)
def test_only_a_run_that_saved_is_queued_again(stand_ins, code, queued_again):
    stand_ins.add("scaling-jax", f"sys.exit({code})")
    script = submitted(stand_ins, "--", "scaling-jax", "pretrain")
    assert played(stand_ins, script) == code
    assert [call["words"] for call in stand_ins.calls("scontrol")] == [["requeue", "7"]] * queued_again


def test_of_an_array_only_the_job_itself_is_queued_again(stand_ins):
    """One job of an array has the array's own id as SLURM_JOB_ID, which would queue all of them."""
    stand_ins.add("scaling-jax", "sys.exit(143)")
    script = submitted(stand_ins, "--shards", "2", "--", "scaling-jax", "study")
    assert played(stand_ins, script, SLURM_ARRAY_JOB_ID="7", SLURM_ARRAY_TASK_ID="1") == 143
    assert [call["words"] for call in stand_ins.calls("scontrol")] == [["requeue", "7_1"]]


def test_a_cancelled_job_is_not_queued_again(stand_ins):
    """Cancelled, the script itself gets SIGTERM too; near the time limit only the processes of the run do."""
    stand_ins.add("scaling-jax", "import signal\nos.kill(os.getppid(), signal.SIGTERM)\nsys.exit(143)")
    script = submitted(stand_ins, "--", "scaling-jax", "pretrain")
    assert played(stand_ins, script) == 143
    assert not stand_ins.calls("scontrol")


@pytest.mark.parametrize(
    "words, message",
    [
        (["--nodes", "0"], "--nodes 0: a whole number from 1 is needed"),
        (["--gpus_per_node", "8x"], "--gpus_per_node 8x: a whole number from 0 is needed"),
        (["--shards", "2", "--processes_per_node", "8"], "--processes_per_node 8: 1 in a study's parts"),
        (["--name", "my run"], "'my run': a line #SBATCH has no room for spaces"),
        (["--sbatch", "--comment=a b"], "'--comment=a b': a line #SBATCH has no room for spaces"),
    ],
)
def test_bad_options_submit_nothing(stand_ins, words, message):
    ended = launch("slurm", *words, "--", "scaling-jax", "study", stand_ins=stand_ins)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == f"slurm.sh: error: {message}\n"
    assert not stand_ins.calls("sbatch")
