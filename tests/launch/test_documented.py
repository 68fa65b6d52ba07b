"""The examples of docs/clusters.md and of the scripts' own help, shown by --dry_run."""

import re
import shlex
import textwrap

import pytest

from scaling_jax import configuration
from scaling_jax.cli.main import parser
from scaling_jax.studies.plan import Study
from scaling_jax.studies.worker import CONFIGURABLES
from scaling_jax.training.finetune import FinetuneRun
from scaling_jax.training.pretrain import PretrainRun
from tests.launch.stand_ins import ROOT, SCRIPTS, StandIns, launch

PAGE = (ROOT / "docs" / "clusters.md").read_text()


def commands(text: str) -> list[list[str]]:
    """Words of every launch command, lines that end in a backslash joined."""
    joined = text.replace("\\\n", " ")
    found = re.findall(r"^(?:  )?(launch/(?:\w+)\.sh --.*)$", joined, re.MULTILINE)
    return [shlex.split(line) for line in found]


@pytest.fixture
def folder(tmp_path):
    """A working folder with the gin file that the page writes."""
    [block] = re.findall(r"^ *```\n( *# wmt\.gin\n.*?)^ *```$", PAGE, re.MULTILINE | re.DOTALL)
    (tmp_path / "wmt.gin").write_text(textwrap.dedent(block))
    return tmp_path


@pytest.mark.parametrize("words", commands(PAGE), ids=lambda words: words[0])
def test_commands_of_the_page(words, folder):
    name = words[0].removeprefix("launch/").removesuffix(".sh")
    shown = launch(name, "--dry_run", *words[1:], stand_ins=StandIns(folder / "stand_ins"), cwd=folder)
    assert shown.returncode == 0, shown.stderr
    assert "scaling-jax " + words[words.index("scaling-jax") + 1] in shown.stdout


@pytest.mark.parametrize("words", commands(PAGE), ids=lambda words: words[0])
def test_what_they_run_is_configured_whole(words, folder, monkeypatch):
    monkeypatch.chdir(folder)
    verb, *flags = words[words.index("scaling-jax") + 1 :]
    flags = [part for flag in flags for part in (("--gin", flag[6:]) if flag[:6] == "--gin." else (flag,))]
    arguments = parser().parse_args([verb, *flags])
    configuration.parse_arguments(arguments, [CONFIGURABLES])
    configuration.call({"pretrain": PretrainRun, "finetune": FinetuneRun, "study": Study}[verb])


def test_the_study_of_the_page_names_its_stores_and_begins_with_what_was_pretrained(folder):
    configuration.parse([str(folder / "wmt.gin")], imports=[CONFIGURABLES])
    study = configuration.call(Study)
    assert study.points() and study.store_paths(folder) == study.stores
    configuration.parse(["gin_configs/runs/pretrain_1b.gin"], ["STORE='given'"], imports=[CONFIGURABLES])
    kept = {f"/shared/runs/base/checkpoints/{tokens}" for tokens in configuration.call(PretrainRun).tokens}
    assert set(study.bases()) < kept


def test_the_page_has_an_example_of_every_script():
    assert {words[0] for words in commands(PAGE)} == {f"launch/{name}.sh" for name in SCRIPTS}


@pytest.mark.parametrize("script", SCRIPTS)
def test_commands_of_the_help(script, tmp_path):
    examples = commands(launch(script, "--help").stdout)
    stand_ins = StandIns(tmp_path)
    assert examples
    for words in examples:
        shown = launch(script, "--dry_run", *words[1:], stand_ins=stand_ins)
        assert shown.returncode == 0, shown.stderr


def test_the_lines_of_the_job_script_are_those_of_the_page():
    [words] = [each for each in commands(PAGE) if "--partition" in each]
    shown = launch("slurm", "--dry_run", *words[1:]).stdout.splitlines()
    quoted = re.findall(r"^#SBATCH .*$", PAGE, re.MULTILINE)
    assert len(quoted) == 5 and set(quoted) <= set(shown)
    [srun] = re.findall(r"^(srun .*) \.\.\.$", PAGE, re.MULTILINE)
    assert any(line.startswith(srun) for line in shown)
