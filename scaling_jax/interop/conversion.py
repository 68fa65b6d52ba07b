"""Folders of others to our checkpoints and back: whole models, tuned ones merged, and adapters."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from scaling_jax import files
from scaling_jax.data.pieces import TOKENIZER_FILES
from scaling_jax.data.store import open_store
from scaling_jax.errors import InputError
from scaling_jax.interop import adapters, hugging_face, reading
from scaling_jax.interop.adapters_reading import read_adapter
from scaling_jax.interop.sources import open_source
from scaling_jax.models import counts
from scaling_jax.models.config import ModelConfig, from_record
from scaling_jax.training import bases, checkpoints
from scaling_jax.training.mesh import Layout
from scaling_jax.training.optimizers import Optimizer
from scaling_jax.training.program import Program
from scaling_jax.tuning.method import TuningMethod, restored_method

ONE_AXIS = Layout()
TOKENIZER = (
    *TOKENIZER_FILES,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "generation_config.json",
)


@dataclasses.dataclass(frozen=True)
class Converted:
    """What a conversion wrote.

    Attributes:
        vocabulary: hash that a store must have; None where none is known.
        remark: what the user should know of it.
    """

    folder: Path
    model: str
    parameters: int
    vocabulary: str | None
    remark: str = ""


def to_checkpoint(
    source: Path,
    out: Path,
    name: str | None = None,
    layout: Layout = ONE_AXIS,
    dtype: str = "float32",
    execution: Mapping[str, Any] | None = None,
    vocabulary: Path | None = None,
) -> Converted:
    """Makes a pretrained checkpoint, as `finetune` starts from, of a Hugging Face folder or T5X checkpoint.

    Its tokenizer files and config.json are kept, for the way back.

    Args:
        source: folder with config.json and safetensors files, or T5X's checkpoint_STEP, which may be in
            a bucket.
        out: folder that does not exist yet, or is empty.
        name: of the model in records; None is the source's.
        layout: where the arrays go while they are read.
        dtype: of the arrays, "float32" or "bfloat16".
        execution: fields of the model's config that say how it runs: dtype, remat, unroll.
        vocabulary: a token store or a tokenizer's file whose tokens the model reads, where the source
            has none of `TOKENIZER_FILES`.

    Raises:
        InputError: see `sources.open_source`; `out` is there, or the vocabulary is too large.
    """
    check_free(out)
    found = open_source(source, name)
    model = dataclasses.replace(found.model, **(execution or {}))
    recorded = recorded_vocabulary(source, vocabulary, model.vocabulary_size)
    mesh = layout.mesh()
    shardings = layout.parameter_shardings(counts.abstract_variables(model)["params"], mesh)
    parameters = reading.read_parameters(found, shardings, dtype)
    about = {
        "kind": "pretrained",
        "model": dataclasses.asdict(model),
        "vocabulary_sha256": recorded,
        "store": None,
        "seed": None,
        "step": 0,
        "pretrain_tokens": None,
        "start_id": found.start_id,
        "hash": checkpoints.tree_hash(parameters),
        "hugging_face": dict(found.settings),
    }
    tokenizer = [source / file for file in TOKENIZER if (source / file).is_file()]
    checkpoints.save(out, parameters, about, tokenizer)
    return Converted(out, model.name, counts.model_parameters(model), recorded)


def to_hugging_face(
    checkpoint: Path,
    out: Path,
    layout: Layout = ONE_AXIS,
    dtype: str = "float32",
    base: Path | None = None,
) -> Converted:
    """Writes a pretrained checkpoint, or a tuned one merged into its base, as a Hugging Face folder.

    Args:
        checkpoint: folder written by `pretrain`, `finetune` or `to_checkpoint`.
        out: folder that does not exist yet, or is empty.
        layout: where the arrays go.
        dtype: of the tensors in the files.
        base: where the base of a tuned one is, if not where it was.

    Raises:
        InputError: no checkpoint, a base that is not where it was, a method that cannot be merged, or a
            model that no Hugging Face family can express.
    """
    check_free(out)
    model, parameters, about = bases.load_base(checkpoint, layout, base=base)
    origin = _origin(checkpoint if base is None else base)
    tokenizer = origin / "tokenizer" if (origin / "tokenizer").is_dir() else None
    settings = _settings(checkpoints.about(origin), model)
    hugging_face.write_model(out, model, parameters, dtype, settings, tokenizer)
    known = settings or model.encoder_layers  # T5's ids are the same for all
    remark = "" if known else "the ids of its first and last token are not known: set them in config.json"
    return Converted(out, model.name, counts.model_parameters(model), about["vocabulary_sha256"], remark)


def to_adapter(checkpoint: Path, out: Path, layout: Layout = ONE_AXIS, base: str | None = None) -> Converted:
    """Writes what a tuned checkpoint trained as a PEFT adapter; its base is not read.

    Args:
        checkpoint: folder written by `finetune`.
        out: folder that does not exist yet, or is empty.
        layout: where the arrays go.
        base: name or folder of the base model in the adapter's config; None is the model's name.

    Raises:
        InputError: no tuned checkpoint, a method or base that PEFT cannot express, or no name for a base that
            was tuned itself: the model's is then that of the one before.
    """
    check_free(out)
    about = checkpoints.about(checkpoint)
    kind = about.get("kind", "resume")
    if kind != "tuned":
        raise InputError(f"{checkpoint} is a {kind} checkpoint, an adapter is made of a tuned one")
    if base is None and _has_tuned_base(about):
        raise InputError(
            f"{checkpoint} was tuned from {about['base']['path']}, which was tuned itself: write that with "
            "--to hugging_face and name the folder with --base"
        )
    model, method = from_record(about["model"]), restored_method(about["method"])
    program = Program(model, method, Optimizer(), layout)
    tuned = checkpoints.restore(checkpoint, program.abstract_tuned())
    adapters.write_adapter(out, model, method, tuned, base or model.name)
    return Converted(out, model.name, program.trained_parameters(), about["vocabulary_sha256"])


def from_adapter(source: Path, out: Path, base: Path, layout: Layout = ONE_AXIS) -> Converted:
    """Makes a tuned checkpoint of a PEFT adapter and the checkpoint of its base.

    Models of the same shapes cannot be told apart by the adapter's tensors; where it names another base, the
    remark says so.

    Raises:
        InputError: see `adapters_reading.read_adapter`; or `out` is there, or `base` is no checkpoint.
    """
    check_free(out)
    model, base_about = bases.base_model(base, layout)
    found = read_adapter(source, model)
    program = Program(model, found.method, Optimizer(), layout)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, program.abstract_tuned())
    tuned = jax.device_put(found.tuned, shardings)
    save_tuned(out, tuned, found.name, found.method, base, base_about, step=0)
    vocabulary, remark = base_about.get("vocabulary_sha256"), _other_base(found.base, base, base_about)
    return Converted(out, model.name, program.trained_parameters(), vocabulary, remark)


def save_tuned(
    out: Path,
    tuned: Any,
    name: str,
    method: TuningMethod,
    base: Any,
    base_about: Mapping[str, Any],
    step: int,
) -> None:
    """Writes a tuned checkpoint, as `finetune` does, of what others trained beside a base of ours.

    Args:
        out: folder.
        tuned: what was trained.
        name: of the method.
        method: with its settings.
        base: where the base is.
        base_about: what it says of itself, see `bases.load_base`.
        step: at which training was.
    """
    about = {
        "kind": "tuned",
        "method": {"name": name, **dataclasses.asdict(method)},
        "base": {
            "path": str(base),
            "hash": base_about["hash"],
            "pretrain_tokens": base_about.get("pretrain_tokens"),
            "dtype": "float32",
            **_tuned_from(base_about),
        },
        "model": base_about["model"],
        "vocabulary_sha256": base_about.get("vocabulary_sha256"),
        "start_id": base_about.get("start_id"),
        "step": step,
    }
    checkpoints.save(out, tuned, about | {"hash": bases.tuned_hash(tuned, about)})


def _tuned_from(base: Mapping[str, Any]) -> dict[str, Any]:
    """What a tuned checkpoint says of a base that was tuned itself, as `finetune` has it."""
    if base["kind"] != "tuned":
        return {}
    return {"tuned_from": {"method": base["method"], "base": base["base"]}}


def _has_tuned_base(about: Mapping[str, Any]) -> bool:
    base = about["base"]
    # Where the base has moved or gone, what was noted of it stays; what earlier versions read lacks it.
    return "tuned_from" in base or (
        checkpoints.exists(base["path"]) and checkpoints.about(base["path"]).get("kind") == "tuned"
    )


def _other_base(named: str | None, base: Path, about: Mapping[str, Any]) -> str:
    """A sentence where the adapter's name for its base is none of the base's; empty where it is."""
    origin = bases.config_json(dict(about)).get("_name_or_path")
    known = [name for name in (about["model"]["name"], origin) if isinstance(name, str) and name]
    if not named or _last_part(named) in map(_last_part, known):
        return ""
    ours = " or ".join(map(repr, known))
    return (
        f"the adapter was made for {named!r} and {base} is {ours}: see that they are the same model, since "
        "others of its shape fit too"
    )


def _last_part(name: str) -> str:
    return name.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1].casefold()


def _origin(checkpoint: Path) -> Path:
    """The pretrained checkpoint at the bottom of a chain of tuned ones."""
    about = checkpoints.about(checkpoint)
    while about["kind"] == "tuned" and checkpoints.exists(about["base"]["path"]):
        checkpoint = files.at(about["base"]["path"])
        about = checkpoints.about(checkpoint)
    return checkpoint


def _settings(origin: Mapping[str, Any], model: ModelConfig) -> dict[str, Any]:
    """What of a config.json is not the model's shape: as it came, or the ids of our own vocabulary."""
    ids = origin.get("token_ids")
    if not ids:
        return dict(origin.get("hugging_face") or {})
    # Nothing stands before the first token of ours but a pad.
    first = "decoder_start_token_id" if model.encoder_layers else "bos_token_id"
    return {first: ids["pad"], "pad_token_id": ids["pad"], "eos_token_id": ids["end"]}


def recorded_vocabulary(source: Any, given: Any, model_size: int) -> str | None:
    """Hash of the vocabulary that a store must have; None where neither is given nor lies beside the source.

    Raises:
        InputError: a vocabulary that cannot be read, or is larger than the model's.
    """
    if given is None:
        # A store prepared with the first has its hash.
        found = [source / file for file in TOKENIZER_FILES if (source / file).is_file()]
        return files.sha256(found[0]) if found else None
    if given.is_dir():
        vocabulary = open_store(given).vocabulary
        if vocabulary.size > model_size:
            raise InputError(f"{given} has {vocabulary.size} tokens, {source} reads {model_size}")
        return vocabulary.sha256()
    try:
        return files.sha256(given)
    except OSError as error:
        raise InputError(f"cannot read the vocabulary {given}: {error.strerror}") from error


def check_free(out: Any) -> None:
    """
    Raises:
        InputError: the folder to write is there and not empty.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} already exists and is not an empty folder")
