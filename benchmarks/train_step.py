"""The training step of the 1B decoder, full and LoRA: tokens per second, MFU, memory, against torch.

    python benchmarks/train_step.py
    python benchmarks/train_step.py --preset cpu
    python benchmarks/train_step.py --rows 32 --remat attention --compiled --operations 12

Runs `tuning_step.py` on the sizes of a preset; its flags may follow and win. `1b` is the 1B decoder of
Zhang et al. 2024, Table 3, in bfloat16, 16 rows of 1,024 tokens, for one GPU of 80 GB or more; transformers
and peft run the same model with PyTorch's fused attention. `cpu` is a tiny one of the same make, to try the
script. Where torch, transformers or peft are missing, only our steps are measured.
"""

import argparse
import importlib.util
import sys
from pathlib import Path

import tuning_step

DECODER = ["--key_value_heads", "1", "--activation", "gelu", "--tied", "--rank", "4"]
PRESETS = {
    "1b": [
        *("--layers", "16", "--model_dim", "2048", "--heads", "8", "--head_dim", "256"),
        *("--feed_forward_dim", "8192", "--vocabulary", "128000", "--dtype", "bfloat16"),
        *("--rows", "16", "--length", "1024", "--steps", "20"),
    ],
    "cpu": [
        *("--layers", "2", "--model_dim", "64", "--heads", "4", "--vocabulary", "512"),
        *("--rows", "4", "--length", "64", "--steps", "4", "--rounds", "1"),
    ],
}
PEERS = ("torch", "transformers", "peft")


def main():
    """Hands the preset's flags on."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--preset", choices=PRESETS, default="1b")
    given, further = parser.parse_known_args()
    missing = [name for name in PEERS if importlib.util.find_spec(name) is None]
    alone = ["--only", "ours"] if missing else []
    if missing:
        print(f"no {', '.join(missing)} here: only our steps are measured", file=sys.stderr)
    tuning_step_file = str(Path(tuning_step.__file__))
    sys.argv = [tuning_step_file, *DECODER, *PRESETS[given.preset], *alone, *further]
    tuning_step.main()


if __name__ == "__main__":
    main()
