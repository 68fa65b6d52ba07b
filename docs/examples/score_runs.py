"""Scores for the runs of a study that kept its checkpoints, beside the columns of its results.csv.

    python docs/examples/score_runs.py runs/laws --scores bleu,chrf --where 'task == "parallel_text_v1"'

Every run's best checkpoint answers the first N distinct inputs of the test split greedily. Answers and
scores are kept in `STUDY/scored/RUN_ID/`, and the table of all runs, with the columns of results.csv, in
`STUDY/scored.csv`; the same command goes on. `--where` names the runs of the task that `--store` holds.
A study scores by itself, run by run, with `Study.evaluations = [@Evaluation()]` and
`Evaluation.scores = ('bleu',)`.
"""

import argparse
import csv
import io
import json
import sys
import time
from pathlib import Path

from scaling_jax import files


def run_scores(study: Path, run_id: str, store: str, evaluation) -> dict:
    """Scores of one run, from its folder of scores if they are there."""
    from scaling_jax.evaluation import evaluations
    from scaling_jax.training.bases import load_checkpoint
    from scaling_jax.training.mesh import Layout

    folder = study / "scored" / run_id
    if (folder / "evaluation.json").exists():
        return files.read_json(folder / "evaluation.json")
    checkpoint = study / "runs" / run_id / "checkpoint"
    subject = evaluations.of_checkpoint(checkpoint, load_checkpoint(checkpoint, Layout()))
    found = evaluations.evaluate_answers(subject, store, evaluation, folder)
    files.write_json(folder / "evaluation.json", found)
    return found


def main() -> None:
    """Scores the runs, prints how far it is, writes the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study", type=Path)
    parser.add_argument("--scores", default="bleu")
    parser.add_argument("--where", help="only these rows, as in `fit --where`")
    parser.add_argument("--store", default="finetune", help="of the study, whose test split is answered")
    parser.add_argument("--examples", type=int, default=500)
    parser.add_argument("--max_new_tokens", type=int, default=40)
    arguments = parser.parse_args()
    from scaling_jax.training import platform

    platform.prepare_process()
    from scaling_jax.evaluation.decoding import Decoding
    from scaling_jax.evaluation.evaluations import Evaluation
    from scaling_jax.evaluation.score import known_scores
    from scaling_jax.laws.table import keep_done, read_table

    known_scores()
    results = arguments.study / "results.csv"
    table = keep_done(read_table(results))
    wanted = (table.where(arguments.where) if arguments.where else table).text("run_id")
    evaluation = Evaluation(
        examples=arguments.examples,
        scores=arguments.scores.split(","),
        decoding=Decoding(max_new_tokens=arguments.max_new_tokens),
    )
    store = str(arguments.study / "stores" / arguments.store)
    found, began = {}, time.monotonic()
    # By name, that is by method and model, so that a compiled program serves its neighbours.
    for index, run_id in enumerate(sorted(wanted)):
        found[run_id] = run_scores(arguments.study, run_id, store, evaluation)
        left = (time.monotonic() - began) / (index + 1) * (len(wanted) - index - 1)
        told = {name: value for name, value in found[run_id].items() if isinstance(value, float)}
        print(f"{index + 1}/{len(wanted)} {run_id} {json.dumps(told)}, {left:.0f} s left", file=sys.stderr)
    with results.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    columns = sorted({name for one in found.values() for name in one} - {"signatures", "notes", "seconds"})
    columns = [name for name in columns if name not in ("examples", "loss")]
    text = io.StringIO()
    writer = csv.DictWriter(text, [*rows[0], *(name for name in columns if name not in rows[0])])
    writer.writeheader()
    for row in rows:
        own = found.get(row["run_id"], {})
        writer.writerow(row | {name: own[name] for name in columns if name in own})
    files.write_text(arguments.study / "scored.csv", text.getvalue())
    print(f"{len(found)} of {len(rows)} runs: {arguments.study / 'scored.csv'}")


if __name__ == "__main__":
    main()
