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
import json
import sys
import time
from pathlib import Path


def run_scores(study: Path, run_id: str, store: str, evaluation) -> dict:
    """Scores of one run; answers that are in its folder are not generated again."""
    from scaling_jax.evaluation import evaluations
    from scaling_jax.training.bases import load_checkpoint
    from scaling_jax.training.mesh import Layout

    checkpoint = study / "runs" / run_id / "checkpoint"
    subject = evaluations.of_checkpoint(checkpoint, load_checkpoint(checkpoint, Layout()))
    return evaluations.evaluate_answers(subject, store, evaluation, study / "scored" / run_id)


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
    from scaling_jax.studies.columns import COLUMNS
    from scaling_jax.studies.results import write_table

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
    columns = [column for name in evaluation.scores for column in known_scores()[name].columns]
    with results.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    for row in rows:
        own = found.get(row["run_id"], {})
        row.update({column: own[column] for column in columns if column in own})
    write_table(arguments.study / "scored.csv", COLUMNS, rows)
    print(f"{len(found)} of {len(rows)} runs: {arguments.study / 'scored.csv'}")


if __name__ == "__main__":
    main()
