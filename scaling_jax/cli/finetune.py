"""Finetunes one pretrained checkpoint by one method on a nested subset of a store's examples."""

from scaling_jax import configuration, files
from scaling_jax.cli import run_folder
from scaling_jax.training import processes

SUMMARY = "tune one checkpoint by one method on so many examples"
EXAMPLE = (
    "  scaling-jax finetune --gin_file gin_configs/runs/finetune.gin --out runs/lora-1000 \\\n"
    "      --gin.INITIAL_CHECKPOINT=runs/base/checkpoints/1638400 --gin.STORE=stores/lab/finetune \\\n"
    "      --gin.METHOD=lora --gin.EXAMPLES=1000"
)


def add_arguments(parser) -> None:
    """Declares the verb's flags."""
    run_folder.add_run_flags(parser)


def run(arguments) -> int:
    """Makes the run, or says that it is there."""
    from scaling_jax.training import platform

    platform.prepare_process()
    with processes.joined(arguments):
        return _run(arguments)


def _run(arguments) -> int:
    from scaling_jax.cli.progress import evaluation_printer
    from scaling_jax.training.finetune import FinetuneRun, finetune

    record = run_folder.run_once(
        arguments,
        lambda folder: finetune(
            configuration.call(FinetuneRun),
            folder,
            evaluation_printer(),
            elsewhere=arguments.resume_elsewhere,
        ),
    )
    if record is None:
        return 0
    if processes.is_first():
        _show(record, files.at(arguments.out))
    return 0 if record["status"] == "done" else 1


def _show(record, folder) -> None:
    results, costs = record["results"], record["costs"]
    if record["status"] != "done":
        print(f"{record['status']}: {record['reason']}")
        return
    print(
        f"test loss {results['loss']:.4f} nats per target token (step {results['best_step']}, "
        f"dev {results['dev_loss']:.4f}, before tuning {results['start_dev_loss']:.4f})"
    )
    print(
        f"{record['parameters']['trained']:,} trained parameters, {costs['train_seconds']:.1f} s; "
        f"record {folder / 'record.json'}"
    )
