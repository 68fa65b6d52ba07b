"""What all launch scripts have in common."""

import re
import shutil
import subprocess

import pytest

from tests.launch.stand_ins import ROOT, SCRIPTS, launch

FILES = sorted((ROOT / "launch").glob("*.sh"))
ENOUGH = {
    "local": [],
    "slurm": [],
    "tpu_vm": ["--name", "pod", "--zone", "z", "--type", "v6e-16"],
    "gke": ["--cluster", "c", "--name", "w", "--device", "v5litepod-16", "--image", "i"],
}
COMMAND = ["--", "scaling-jax", "pretrain", "--gin_file", "gin_configs/runs/pretrain.gin"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_bash_reads_it(path):
    subprocess.run(["bash", "-n", path], check=True)


def test_shellcheck_has_nothing_to_say():
    if not shutil.which("shellcheck"):
        pytest.skip("shellcheck is not installed (apt-get install shellcheck)")
    found = subprocess.run(
        ["shellcheck", "--external-sources", "--source-path", ROOT, *FILES], capture_output=True, text=True
    )
    assert found.returncode == 0, found.stdout


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_teaches_with_an_example_and_names_every_option(script):
    shown = launch(script, "--help")
    assert shown.returncode == 0 and not shown.stderr
    assert re.search(rf"^  launch/{script}\.sh --.* -- ", shown.stdout.replace("\\\n", ""), re.MULTILINE)
    text = (ROOT / "launch" / f"{script}.sh").read_text()
    names = " ".join(re.findall(r"(?:takes|lists|switches)='([^']*)'", text)).split()
    assert names
    for name in [*names, "dry_run"]:
        assert f"--{name}" in shown.stdout


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_plain_command_is_shown_and_not_run(script):
    shown = launch(script, *ENOUGH[script], "--dry_run", *COMMAND)
    assert shown.returncode == 0, shown.stderr
    assert "scaling-jax pretrain --gin_file gin_configs/runs/pretrain.gin" in shown.stdout


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize(
    "words, message",
    [
        (["--nods", "2", *COMMAND], "unknown option --nods"),
        (["pretrain"], "unexpected pretrain: options first, then -- and the command"),
        ([], "no command: write -- scaling-jax VERB ... at the end"),
        (["--"], "no command"),
        (["--shards"], "--shards needs a value"),
        (["--dry_run=yes", *COMMAND], "--dry_run takes no value"),
        (["--", "scaling-jax", "pretrain", "--gin_file", "none.gin"], "no gin file none.gin: looked in"),
        (["--", "scaling-jax", "pretrain", "--gin_file=none.gin"], "no gin file none.gin: looked in"),
        (["--shards", "2", *COMMAND], "--shards is for scaling-jax study"),
        (["--shards", "two", "--", "scaling-jax", "study"], "--shards two: a whole number from 1 is needed"),
        (["--shards", "0", "--", "scaling-jax", "study"], "--shards 0: a whole number from 1 is needed"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(script, words, message):
    if script == "tpu_vm" and any("--shards" in word for word in words):
        message = "unknown option --shards"
    ended = launch(script, *ENOUGH[script], *words)
    assert ended.returncode == 2
    assert ended.stdout == "" and ended.stderr.count("\n") == 1
    assert ended.stderr.startswith(f"{script}.sh: error: {message}")


def test_gin_files_are_looked_for_as_the_verbs_do(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "own.gin").write_text("")
    files = ["--gin_file", "own.gin", "--gin_file=gin_configs/runs/pretrain.gin"]
    command = ["--dry_run", "--", "scaling-jax", "pretrain", *files]
    assert launch("local", *command, cwd=tmp_path).returncode == 2
    assert launch("local", *command, "--gin_search_paths", "elsewhere,mine", cwd=tmp_path).returncode == 0
    assert launch("local", *command, "--gin_search_paths=mine", cwd=tmp_path).returncode == 0
    assert launch("local", *command, cwd=tmp_path / "mine").returncode == 0


def test_absolute_gin_files_are_looked_for_only_where_the_command_runs_here():
    absolute = ["--dry_run", "--", "scaling-jax", "pretrain", "--gin_file", "/nowhere/mine.gin"]
    ended = {script: launch(script, *ENOUGH[script], *absolute).returncode for script in SCRIPTS}
    assert ended == {"local": 2, "slurm": 2, "tpu_vm": 0, "gke": 0}


@pytest.mark.parametrize("script, missing", [("slurm", "sbatch"), ("tpu_vm", "gcloud"), ("gke", "xpk")])
def test_a_missing_scheduler_is_said(tmp_path, script, missing):
    for name in ("bash", "dirname", "git"):
        (tmp_path / name).symlink_to(shutil.which(name))
    ended = launch(script, *ENOUGH[script], *COMMAND, PATH=str(tmp_path))
    assert ended.returncode == 2 and ended.stderr.count("\n") == 1
    assert ended.stderr.startswith(f"{script}.sh: error: no {missing} here: ")
