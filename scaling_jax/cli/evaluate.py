"""Mean nats per target token of a pretrained or tuned checkpoint on one split of a store."""

import json
import math
from pathlib import Path

from scaling_jax import configuration

SUMMARY = "loss of a checkpoint on a split"
EXAMPLE = "  scaling-jax evaluate runs/lora-1000/checkpoint --store stores/lab/finetune --split test"


def add_arguments(parser) -> None:
    """Declares the verb's flags."""
    parser.add_argument(
        "checkpoint", metavar="CHECKPOINT", help="folder with about.json, pretrained or tuned"
    )
    parser.add_argument("--store", required=True, metavar="DIR", help="token store")
    parser.add_argument("--split", default="test", help="train, dev or test (default)")
    parser.add_argument("--examples", type=int, metavar="N", help="only the first N examples")
    parser.add_argument(
        "--base", metavar="DIR", help="where the base of a tuned checkpoint is now, if it moved"
    )
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments) -> int:
    """Evaluates and prints."""
    from scaling_jax.training import platform

    platform.prepare_process()
    configuration.import_module("scaling_jax.studies.configurables")
    from scaling_jax.training.split_loss import evaluate_checkpoint

    loss, examples = evaluate_checkpoint(
        Path(arguments.checkpoint),
        arguments.store,
        arguments.split,
        arguments.examples,
        arguments.batch_size,
        Path(arguments.base) if arguments.base else None,
    )
    if arguments.json:
        print(
            json.dumps(
                {"loss": loss, "perplexity": math.exp(loss), "examples": examples, "split": arguments.split}
            )
        )
    else:
        print(
            f"{loss:.5f} nats per target token, perplexity {math.exp(loss):.4f}, "
            f"{examples:,} {arguments.split} examples"
        )
    return 0
