"""How fast `scaling-jax prepare` is and what memory it takes, in one process and under Apache Beam.

    python benchmarks/prepare.py --text wiki.txt news.txt --megabytes 32 128 --workers 0 1 2

The text, one document per line, is repeated to each size. 0 workers is the process itself, others are
processes of Beam's DirectRunner. Each is a command of its own, whose seconds include all imports.
Prints a line for each, and at last one JSON object with all of them.
"""

import argparse
import filecmp
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]


def repeated(paths, megabytes, target):
    """Writes the lines of the files again and again until there are so many megabytes."""
    lines = [line for path in paths for line in Path(path).read_text("utf-8").splitlines(keepends=True)]
    wanted = int(megabytes * 1e6)
    with open(target, "w", encoding="utf-8") as file:
        while file.tell() < wanted:
            file.writelines(lines)
    return target


def measure(text, out, workers, vocabulary):
    """Seconds and the peak memory in bytes of the largest process of one `prepare`."""
    command = [sys.executable, "-m", "scaling_jax.cli.main", "prepare"]
    command += ["--gin_file", "gin_configs/tasks/plain_text.gin", "--out", str(out)]
    command += [f"--gin.TRAIN='{text}'", f"--gin.sentencepiece.size={vocabulary}"]
    command += ["--gin.sentencepiece.lines=20000"]
    if workers:
        options = [f"direct_num_workers={workers}", "direct_running_mode=multi_processing"]
        command += ["--runner", "DirectRunner", "--runner_options", *options]
    begin = time.monotonic()
    process = subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"prepare ended with status {status}")
    return time.monotonic() - begin, usage.ru_maxrss * 1024


def main():
    """Measures every size with every number of workers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--text", nargs="+", required=True)
    parser.add_argument("--megabytes", type=float, nargs="+", default=[32.0])
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--vocabulary", type=int, default=2048)
    given = parser.parse_args()
    found = []
    for megabytes in given.megabytes:
        with tempfile.TemporaryDirectory() as folder:
            text = repeated(given.text, megabytes, Path(folder, "text.txt"))
            size = text.stat().st_size / 1e6  # whole repetitions, so a little more
            first = None
            for workers in given.workers:
                out = Path(folder, f"{workers}")
                seconds, memory = measure(text, out, workers, given.vocabulary)
                manifest = json.loads((out / "pretrain/manifest.json").read_text())
                tokens = sum(split["tokens"]["targets"] for split in manifest["splits"].values())
                first = first or out
                same = filecmp.cmp(first / "pretrain/manifest.json", out / "pretrain/manifest.json", False)
                row = {"megabytes": round(size, 1), "workers": workers, "seconds": round(seconds, 1)}
                row |= {"tokens": tokens, "megabytes_per_second": round(size / seconds, 2)}
                row |= {"peak_memory_mb": round(memory / 1e6), "same_manifest": same}
                found.append(row)
                print("  ".join(f"{name} {value}" for name, value in row.items()), flush=True)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
