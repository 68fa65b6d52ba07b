"""What `pretrain` and `finetune` share: the flags of a run's folder, and a run that is made once in it."""

import re
from collections.abc import Callable
from typing import Any

from scaling_jax import configuration, files
from scaling_jax.errors import InputError
from scaling_jax.training import processes


def add_run_flags(parser) -> None:
    """Declares the flags of a run: its configuration, its folder, and the processes that make it."""
    configuration.add_arguments(parser)
    parser.add_argument("--out", required=True, metavar="DIR", help="run folder; an interrupted run goes on")
    parser.add_argument(
        "--resume_elsewhere",
        action="store_true",
        help="go on also from a state saved on other devices, in another mesh or by other processes; "
        "the record says so",
    )
    processes.add_arguments(parser)


def claim_run(folder: Any, elsewhere: bool = False) -> bool:
    """Whether the run is still to be made; records its configuration in a new folder.

    Args:
        folder: of the run.
        elsewhere: its layout may be another one than when it was begun.

    Raises:
        InputError: the folder holds a run of another configuration, or something that is no run.
    """
    record, config = folder / "record.json", folder / "config.gin"
    if config.exists():
        before, now = config.read_text("utf-8"), configuration.resolved()
        moved = before != now and elsewhere and _without_layout(before) == _without_layout(now)
        if before != now and not moved:
            raise InputError(
                f"{folder} holds a run of another configuration (see {config}): give a new --out"
                + _layout_hint(before, now)
            )
        if record.exists() and files.read_json(record)["status"] == "done":
            return False
        if moved:
            files.write_text(config, now)
        return True
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder} is not empty and holds no run: give a new --out")
    files.write_text(config, configuration.resolved())
    return True


def _layout_hint(before: str, now: str) -> str:
    only_layout = _without_layout(before) == _without_layout(now)
    return ", or go on with the other Layout by --resume_elsewhere" if only_layout else ""


def _without_layout(config: str) -> list[str]:
    """The bindings of a configuration, but for those that say where arrays go."""
    kept, skipping = [], False
    for line in config.splitlines():
        if not line.startswith((" ", ")", "]", "}")):  # else it goes on with the line before
            skipping = re.match(r"(\S+/)?(training\.)?Layout\.|\S+\.layout = @", line) is not None
        if line.strip() and not line.startswith("#") and not skipping:
            kept.append(line)
    return kept


def run_once(arguments, make: Callable[[Any], dict[str, Any]]) -> dict[str, Any] | None:
    """Parses gin and makes the run in `--out`; None where it was finished before.

    Raises:
        InputError: see `claim_run`, and what gin or the run refuses.
    """
    folder = files.at(arguments.out)
    configuration.parse_arguments(arguments, ["scaling_jax.studies.configurables"])
    if not processes.on_first(lambda: claim_run(folder, arguments.resume_elsewhere)):
        if processes.is_first():
            print(f"{folder}: finished before, nothing redone")
        return None
    try:
        return make(folder)
    except Exception:
        # A run that was refused leaves no folder that would refuse the corrected command.
        if processes.is_first() and [path.name for path in folder.iterdir()] == ["config.gin"]:
            files.remove_folder(folder)
        raise
