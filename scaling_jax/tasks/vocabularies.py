"""Vocabularies of a token store: SentencePiece trained here, one made elsewhere (a model file, a Hugging
Face folder), or bytes.

Ids of a vocabulary trained here are T5's: pad 0, end of sequence 1, unknown 2. `extra_ids` more may
follow the pieces, as in seqio: no text becomes one of them, pretraining objectives take their sentinels
and modes there (100 in T5).
"""

import dataclasses
import io
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import gin

from scaling_jax import files
from scaling_jax.data.pieces import vocabulary_in
from scaling_jax.data.store import VocabularyFile
from scaling_jax.errors import InputError
from scaling_jax.tasks import registry

# Sums of floating-point numbers inside the trainer depend on the number of threads: fixed, not the machine's.
_THREADS = 2
_LONGEST_LINE_BYTES = 1 << 20


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """A vocabulary that prepare can make.

    Attributes:
        settings: what it depends on, written to the manifest.
        text: names of the stores whose training text it is trained on; None for all of them, an empty
            tuple when it needs no text.
        make: gets that text in blocks of lines and a folder to write to, returns the vocabulary.
    """

    settings: Mapping[str, Any]
    text: tuple[str, ...] | None
    make: Callable[[Iterator[str], Path], VocabularyFile]


@gin.configurable(module="tasks")
def sentencepiece(
    size: int = 512,
    algorithm: str = "bpe",
    text: str | Sequence[str] | None = None,
    lines: int = 200_000,
    character_coverage: float = 1.0,
    byte_fallback: bool = False,
    extra_ids: int = 0,
) -> Vocabulary:
    """A SentencePiece vocabulary trained on the stores' own training text.

    Args:
        size: pieces, with pad, end of sequence, unknown.
        algorithm: "bpe", which trains in seconds, or "unigram", which takes ten times as long.
        text: names of the stores to train on, or one; all of them where None.
        lines: at most this many lines (examples, or documents), the first of each store in equal shares.
        character_coverage: share of the text's characters that get a piece; the rest is unknown.
        byte_fallback: spell what is unknown in bytes (needs 256 pieces).
        extra_ids: ids after the pieces that stand for no text.

    Raises:
        InputError: unknown algorithm; `make` raises it when the text has too few pieces for the size.
    """
    if algorithm not in ("unigram", "bpe"):
        raise InputError(f"sentencepiece.algorithm = {algorithm!r}: must be 'unigram' or 'bpe'")
    _check_extra_ids("sentencepiece", extra_ids)
    names = None if text is None else registry.as_names(text)
    options = {
        "vocab_size": size,
        "model_type": algorithm,
        "character_coverage": character_coverage,
        "byte_fallback": byte_fallback,
    }

    def make(text_lines: Iterator[str], folder: Path) -> VocabularyFile:
        # Text that occurs in two stores is taken once: long repeats make the unigram trainer's search for
        # frequent substrings quadratic.
        file = _train(iter(dict.fromkeys(itertools.islice(text_lines, lines))), folder, options)
        return _extended(file, extra_ids)

    settings = {"kind": "sentencepiece", "trained": True, "lines": lines, "text": names, **options}
    return Vocabulary(settings | _recorded(extra_ids), names, make)


@gin.configurable(module="tasks")
def sentencepiece_model(path: str | None = None, extra_ids: int | None = None) -> Vocabulary:
    """A SentencePiece model made elsewhere, such as the one of a pretrained checkpoint.

    Args:
        path: its file.
        extra_ids: ids after the pieces that stand for no text. None is as many as the model has itself, as
            pieces <extra_id_N> at its end (mT5's has 100, T5's none).

    Raises:
        InputError: no such file, not a SentencePiece model, one without an end-of-sequence piece, or
            extra ids for a model that has some itself.
    """
    if not path:
        raise InputError("sentencepiece_model.path is not set: bind it to a .model file")
    if not Path(path).is_file():
        raise InputError(f"sentencepiece_model.path: no file {path}")
    _check_extra_ids("sentencepiece_model", extra_ids or 0)
    file = _open(Path(path))
    if extra_ids and file.extra_ids not in (0, extra_ids):
        raise InputError(
            f"sentencepiece_model.extra_ids = {extra_ids}: {path} has {file.extra_ids} itself, leave it unset"
        )
    if not file.extra_ids:
        file = _extended(file, extra_ids or 0)
    settings = {"kind": "sentencepiece", "trained": False, "sha256": file.sha256()}
    return Vocabulary(settings | _recorded(extra_ids or 0), (), lambda text_lines, folder: file)


@gin.configurable(module="tasks")
def hugging_face_vocabulary(folder: str | None = None) -> Vocabulary:
    """That of a model's folder as `convert` takes it: its SentencePiece model, or its tokenizer.json.

    Args:
        folder: of the model; its config.json says which ids end a text.

    Raises:
        InputError: no such folder, no tokenizer in it, or no end that is known.
    """
    if not folder:
        raise InputError("hugging_face_vocabulary.folder is not set: bind it to the model's folder")
    config = Path(folder) / "config.json"
    file = vocabulary_in(Path(folder), files.read_json(config) if config.is_file() else {})
    if file.kind == "sentencepiece":
        return sentencepiece_model(str(file.path))
    settings = {"kind": file.kind, "trained": False, "sha256": file.sha256(), "eos_id": file.eos_id}
    return Vocabulary(settings, (), lambda text_lines, folder: file)


@gin.configurable(module="tasks")
def byte_vocabulary(extra_ids: int = 0) -> Vocabulary:
    """UTF-8 bytes after pad, end of sequence and unknown: 259 ids and `extra_ids`, no file, no training."""
    _check_extra_ids("byte_vocabulary", extra_ids)
    file = _extended(VocabularyFile("bytes", 259), extra_ids)
    return Vocabulary({"kind": "bytes"} | _recorded(extra_ids), (), lambda text_lines, folder: file)


def _check_extra_ids(configurable: str, extra_ids: int) -> None:
    if type(extra_ids) is not int or extra_ids < 0:
        raise InputError(f"{configurable}.extra_ids = {extra_ids!r}: a number of ids, 0 or more")


def _extended(file: VocabularyFile, extra_ids: int) -> VocabularyFile:
    return dataclasses.replace(file, size=file.size + extra_ids, extra_ids=extra_ids)


def _recorded(extra_ids: int) -> dict[str, int]:
    """For the settings: a vocabulary without extra ids says nothing of them, as stores made before do."""
    return {"extra_ids": extra_ids} if extra_ids else {}


def _train(text_lines: Iterator[str], folder: Path, options: Mapping[str, Any]) -> VocabularyFile:
    import sentencepiece as library  # 40 ms that no other verb needs to pay

    model = io.BytesIO()
    try:
        library.SentencePieceTrainer.train(
            sentence_iterator=text_lines,
            model_writer=model,
            pad_id=0,
            eos_id=1,
            unk_id=2,
            bos_id=-1,
            num_threads=_THREADS,
            max_sentence_length=_LONGEST_LINE_BYTES,
            minloglevel=3,
            **options,
        )
    except RuntimeError as error:
        raise InputError(_explain(str(error), options["vocab_size"])) from error
    return _open(files.write_bytes(folder / "vocabulary.model", model.getvalue()))


def _explain(message: str, size: int) -> str:
    largest = re.search(r"set it to a value <= (\d+)", message)
    if largest:
        return (
            f"sentencepiece.size = {size}: the training text is too small for it, "
            f"{largest.group(1)} is the largest that it allows"
        )
    characters = re.search(r"smaller than required_chars\. \d+ vs (\d+)", message)
    if characters:
        return (
            f"sentencepiece.size = {size}: the training text has more characters than that; give at least "
            f"{characters.group(1)}, or bind sentencepiece.character_coverage below 1"
        )
    return f"sentencepiece.size = {size}: training failed ({' '.join(message.split())})"


def _open(path: Path) -> VocabularyFile:
    import sentencepiece as library

    try:
        processor = library.SentencePieceProcessor(model_file=str(path))
    except (RuntimeError, OSError) as error:
        raise InputError(f"{path}: not a SentencePiece model") from error
    if processor.eos_id() < 0:
        raise InputError(f"{path}: the model has no end-of-sequence piece, which every target must end in")
    # Padding is masked wherever it is used, so a model without a pad piece may pad with id 0.
    pad_id = max(processor.pad_id(), 0)
    size = processor.get_piece_size()
    extra_ids = 0
    while re.fullmatch(r"▁?<extra_id_\d+>", processor.id_to_piece(size - 1 - extra_ids)):
        extra_ids += 1
    ids = (pad_id, processor.eos_id(), processor.unk_id())
    return VocabularyFile("sentencepiece", size, path, *ids, extra_ids)
