"""FOLDER/evaluation.json: the loss and scores of `evaluate --out`, which later calls add to.

    FOLDER/evaluation.json         columns, signatures, notes
    FOLDER/evaluation.about.json   what they are of, and the hash of that file

What is there is kept where it is of the same answers, or of the same model, split and examples where no
answers were asked for; what is measured again replaces what was.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scaling_jax import files
from scaling_jax.errors import InputError
from scaling_jax.evaluation.score import known_scores

_FILE, _ABOUT = "evaluation.json", "evaluation.about.json"


def add(folder: Path, found: Mapping[str, Any], of: Mapping[str, Any]) -> Path:
    """Writes what was found, with what an earlier call found of the same.

    Args:
        folder: of the evaluation.
        found: {COLUMN: value, "signatures": {SCORE: signature}, "notes": [...], ...}.
        of: {"answers": hash} and what else tells what was evaluated.
    """
    earlier, earlier_of = _earlier(folder, of)
    for name in found.get("signatures", {}):
        earlier = _without(earlier, name)
    together = {**earlier, **found}
    together["signatures"] = {**earlier.get("signatures", {}), **found.get("signatures", {})}
    together["notes"] = list(dict.fromkeys([*earlier.get("notes", []), *found.get("notes", [])]))
    path = files.write_json(folder / _FILE, together)
    files.write_json(folder / _ABOUT, {"of": {**earlier_of, **of}, "sha256": files.sha256(path)})
    return path


def _earlier(folder: Path, of: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is there of the same thing, and what it is of, or nothing."""
    path, about_path = folder / _FILE, folder / _ABOUT
    if not (path.is_file() and about_path.is_file()):
        return {}, {}
    try:
        about, found = files.read_json(about_path), files.read_json(path)
        # A call that was killed between the two files leaves another hash.
        if about["sha256"] != files.sha256(path) or not _same(about["of"], of):
            return {}, {}
    except (InputError, KeyError, TypeError):
        return {}, {}
    return found, about["of"]


def _same(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    if "answers" in before and "answers" in now:
        return before["answers"] == now["answers"]
    shared = before.keys() & now.keys() - {"answers"}
    return bool(shared) and all(before[key] == now[key] for key in shared)


def _without(found: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Without the columns and notes of one score, those beyond the declared ones included."""
    known = known_scores()
    own = known[name].columns if name in known else ()
    others = {column for one in known.values() if one.name != name for column in one.columns}
    kept = {
        key: value
        for key, value in found.items()
        if key in others or not (key in own or key.startswith(f"{name}_"))
    }
    kept["notes"] = [note for note in found.get("notes", []) if not note.startswith(f"{name}: ")]
    return kept
