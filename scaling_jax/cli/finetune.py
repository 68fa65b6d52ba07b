"""Finetunes one pretrained checkpoint by one method on a nested subset of a store's examples."""

from pathlib import Path

from scaling_jax import configuration

SUMMARY = "tune one checkpoint by one method on so many examples"
EXAMPLE = (
    "  scaling-jax finetune --gin_file gin_configs/runs/finetune.gin --out runs/lora-1000 \\\n"
    "      --gin.INITIAL_CHECKPOINT=runs/base/checkpoints/1638400 --gin.STORE=stores/lab/finetune \\\n"
    "      --gin.METHOD=lora --gin.EXAMPLES=1000"
)


def add_arguments(parser) -> None:
    """Declares the verb's flags."""
    configuration.add_arguments(parser)
    parser.add_argument("--out", required=True, metavar="DIR", help="run folder; an interrupted run goes on")


def run(arguments) -> int:
    """Makes the run, or says that it is there."""
    from scaling_jax.training import platform

    platform.prepare_process()
    from scaling_jax.cli.progress import evaluation_printer, run_once
    from scaling_jax.training.finetune import FinetuneRun, finetune

    record = run_once(
        arguments, lambda folder: finetune(configuration.call(FinetuneRun), folder, evaluation_printer())
    )
    if record is None:
        return 0
    results, costs = record["results"], record["costs"]
    if record["status"] != "done":
        print(f"{record['status']}: {record['reason']}")
        return 1
    print(
        f"test loss {results['loss']:.4f} nats per target token (step {results['best_step']}, "
        f"dev {results['dev_loss']:.4f}, before tuning {results['start_dev_loss']:.4f})"
    )
    print(
        f"{record['parameters']['trained']:,} trained parameters, {costs['train_seconds']:.1f} s; "
        f"record {Path(arguments.out) / 'record.json'}"
    )
    return 0
