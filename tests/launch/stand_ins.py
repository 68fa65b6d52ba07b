"""Commands that stand in for schedulers and runs: they write down how they were called."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SCRIPTS = ("local", "slurm", "tpu_vm", "gke")
# Words that any layer of shell, YAML or Kubernetes in between would change if it were let to.
NASTY = [
    "--gin.TEXT='it''s \"a b\", $(HOSTNAME) ${HOME} $$ \\ `date` ! {y} {0} %s #c: - x'",
    "--gin.TUPLE=(1, 2)",
    "new\nline\ttab",
    "",
    "ü, * ~ [a-z]?",
    "--gin.MAP={'en': 0.5, 'de': 0.5}",
]

_RECORDER = """#!{python} -IS
import json, os, sys
stdin = "" if sys.stdin is None or sys.stdin.isatty() or {ignore_stdin} else sys.stdin.read()
call = dict(name=os.path.basename(sys.argv[0]), words=sys.argv[1:], stdin=stdin, cwd=os.getcwd())
call["environment"] = {{name: value for name, value in os.environ.items() if name.startswith({prefixes})}}
with open({calls!r}, "a") as file:
    file.write(json.dumps(call) + "\\n")
{body}
"""
_PREFIXES = ("SCALING_JAX_", "CUDA_VISIBLE", "JAX_", "SETUP_")


class StandIns:
    """A folder for the front of PATH, and what was called of it."""

    def __init__(self, folder: Path):
        self.folder, self.calls_file = folder / "bin", folder / "calls.jsonl"
        self.folder.mkdir(parents=True)

    def add(self, name: str, body: str = "", stdin: bool = False) -> None:
        """Adds a command that records its call and then runs `body` (Python; `call` is what it recorded)."""
        text = _RECORDER.format(
            python=sys.executable,
            calls=str(self.calls_file),
            body=body,
            prefixes=_PREFIXES,
            ignore_stdin=not stdin,
        )
        path = self.folder / name
        path.write_text(text)
        path.chmod(0o755)

    def calls(self, name: str) -> list[dict]:
        """The calls of one command so far."""
        if not self.calls_file.exists():
            return []
        calls = [json.loads(line) for line in self.calls_file.read_text().splitlines()]
        return [call for call in calls if call["name"] == name]

    def environment(self, **more: str) -> dict[str, str]:
        """This process's environment without what a launcher reads, with the stand-ins first on PATH."""
        left_out = ("SCALING_JAX_", "CUDA_VISIBLE", "JAX_", "SLURM", "SBATCH")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
        return kept | {"PATH": f"{self.folder}:{os.environ['PATH']}"} | more


def launch(
    script: str, *words: str, stand_ins: StandIns | None = None, cwd: Path | None = None, **environment
):
    """Runs `launch/SCRIPT.sh` and returns the ended process."""
    variables = stand_ins.environment(**environment) if stand_ins else {**os.environ, **environment}
    return subprocess.run(
        [str(ROOT / "launch" / f"{script}.sh"), *words],
        env=variables,
        cwd=cwd or ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
    )
