"""Pretrains one model on a store of windows, keeping a checkpoint at every token count asked for."""

from pathlib import Path

from scaling_jax import configuration, files
from scaling_jax.cli import run_folder
from scaling_jax.training import processes

SUMMARY = "train one model from scratch on a store of windows"
EXAMPLE = (
    "  scaling-jax pretrain --gin_file gin_configs/runs/pretrain.gin --out runs/base \\\n"
    "      --gin.MODEL=ladder_60k --gin.STORE=stores/lab/pretrain --gin.TOKENS='(819200, 1638400)'"
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
    import gin

    from scaling_jax.cli.progress import evaluation_printer
    from scaling_jax.training.pretrain import PretrainRun, pretrain

    def make(folder: Path) -> dict:
        wanted = configuration.call(PretrainRun)
        with gin.config_scope(wanted.mixture or None):
            levels, seed = tuple(wanted.tokens), wanted.seed
            return pretrain(
                wanted.model,
                wanted.store,
                levels,
                seed,
                folder,
                evaluation_printer(),
                arguments.resume_elsewhere,
            )

    record = run_folder.run_once(arguments, make)
    if record is None:
        return 0
    if processes.is_first():
        costs = record["costs"]
        print(f"{record['model']}: {record['status']} {record['reason']}".rstrip())
        print(f"{costs['train_seconds']:.1f} s, {costs['tokens_per_second'] or 0:,.0f} tokens/s")
        for level in record["levels"]:
            print(f"{files.at(arguments.out) / level['checkpoint']}: {level['pretrain_tokens']:,} tokens")
    return 0 if record["status"] == "done" else 1
