"""The Dockerfile as far as it can be read without an engine that builds it."""

import re
import subprocess

import pytest

from tests.launch.stand_ins import ROOT
from tests.test_install import declared

INSTRUCTIONS = {"ARG", "FROM", "ENV", "WORKDIR", "COPY", "RUN", "CMD"}


def instructions() -> list[tuple[str, str]]:
    """(instruction, what follows) in order; comments left out, continued lines joined."""
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [tuple(line.split(None, 1)) for line in joined.splitlines() if line.strip()]


def ignored() -> list[str]:
    return (ROOT / ".dockerignore").read_text().split()


def test_instructions_are_known_and_begin_with_the_base():
    named = [name for name, _ in instructions()]
    assert set(named) <= INSTRUCTIONS
    assert named[:2] == ["ARG", "FROM"] and named[-1] == "CMD"


def test_what_is_copied_is_there_and_not_ignored():
    sources = [word for name, rest in instructions() if name == "COPY" for word in rest.split()[:-1]]
    assert "." in sources and "setup.py" in sources
    for source in sources:
        assert (ROOT / source).exists()
        assert source.split("/")[0] not in ignored()
    for needed in ("launch", "scaling_jax", "gin_configs", "constraints.txt"):
        assert needed not in ignored()


def installed(accelerator: str, tmp_path) -> subprocess.CompletedProcess:
    """Runs the installing line as the engine would, with a pip that prints its words."""
    [line] = [rest for name, rest in instructions() if name == "RUN" and "pip install" in rest]
    defaults = dict(re.findall(r"^ARG (\w+)=(\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE))
    (tmp_path / "pip").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (tmp_path / "pip").chmod(0o755)
    environment = defaults | {"ACCELERATOR": accelerator, "PATH": f"{tmp_path}:/usr/bin:/bin"}
    return subprocess.run(["sh", "-c", line], env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(
    "accelerator, extras",
    [("gpu", "gpu,text,scores,judge"), ("tpu", "tpu,text,scores,judge"), ("cpu", "text,scores,judge")],
)
def test_each_accelerator_installs_its_extras(accelerator, extras, tmp_path):
    ended = installed(accelerator, tmp_path)
    assert ended.stdout.splitlines() == ["install", "-e", f".[{extras}]", "-c", "constraints.txt"]
    assert set(extras.split(",")) <= set(declared("EXTRAS"))


def test_another_accelerator_is_refused(tmp_path):
    ended = installed("npu", tmp_path)
    assert ended.returncode == 2 and ended.stdout == ""
    assert ended.stderr == "ACCELERATOR is gpu, tpu or cpu, not npu\n"


def test_the_pod_script_lies_where_it_is_looked_for():
    [folder] = [rest for name, rest in instructions() if name == "WORKDIR"]
    assert f"{folder}/launch/gke_pod.sh" in (ROOT / "launch" / "gke.sh").read_text()
