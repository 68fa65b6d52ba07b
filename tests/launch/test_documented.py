"""The examples of docs/clusters.md and of the scripts' own help, shown by --dry_run."""

import re
import shlex

import pytest

from tests.launch.stand_ins import ROOT, SCRIPTS, StandIns, launch

PAGE = (ROOT / "docs" / "clusters.md").read_text()


def commands(text: str) -> list[list[str]]:
    """Words of every launch command, lines that end in a backslash joined."""
    joined = text.replace("\\\n", " ")
    found = re.findall(r"^(?:  )?(launch/(?:\w+)\.sh --.*)$", joined, re.MULTILINE)
    return [shlex.split(line) for line in found]


@pytest.mark.parametrize("words", commands(PAGE), ids=lambda words: words[0])
def test_commands_of_the_page(words, tmp_path):
    name = words[0].removeprefix("launch/").removesuffix(".sh")
    shown = launch(name, "--dry_run", *words[1:], stand_ins=StandIns(tmp_path))
    assert shown.returncode == 0, shown.stderr
    assert "scaling-jax " + words[words.index("scaling-jax") + 1] in shown.stdout


def test_the_page_has_an_example_of_every_script():
    assert {words[0] for words in commands(PAGE)} == {f"launch/{name}.sh" for name in SCRIPTS}


@pytest.mark.parametrize("script", SCRIPTS)
def test_commands_of_the_help(script, tmp_path):
    examples = commands(launch(script, "--help").stdout)
    assert examples
    for words in examples:
        shown = launch(script, "--dry_run", *words[1:], stand_ins=StandIns(tmp_path / str(len(words))))
        assert shown.returncode == 0, shown.stderr


def test_the_lines_of_the_job_script_are_those_of_the_page():
    [words] = [each for each in commands(PAGE) if "--partition" in each]
    shown = launch("slurm", "--dry_run", *words[1:]).stdout.splitlines()
    quoted = re.findall(r"^#SBATCH .*$", PAGE, re.MULTILINE)
    assert len(quoted) == 5 and set(quoted) <= set(shown)
    [srun] = re.findall(r"^(srun .*) \.\.\.$", PAGE, re.MULTILINE)
    assert any(line.startswith(srun) for line in shown)
