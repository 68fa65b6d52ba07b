"""Text to token ids and back for a vocabulary, as `prepare` does it through seqio, without TensorFlow."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from scaling_jax.data.store import VocabularyFile
from scaling_jax.errors import InputError

# Of bytes: pad, end of sequence, unknown.
_SPECIAL_IDS = 3
# A folder's vocabulary is in the first of these that is there; the first two are SentencePiece models.
TOKENIZER_FILES = ("tokenizer.model", "spiece.model", "tokenizer.json")


class Pieces(Protocol):
    """A vocabulary that can be used."""

    def encode(self, text: str) -> list[int]:
        """Token ids, without EOS."""

    def decode(self, ids: Sequence[int]) -> str:
        """Text; pad, EOS and ids that stand for no piece give nothing or the mark of what is unknown."""


def pieces_of(vocabulary: VocabularyFile) -> Pieces:
    """Opens a vocabulary.

    Raises:
        InputError: its kind is not known, its library is not installed, or its file cannot be read.
    """
    if vocabulary.kind == "bytes":
        return _Bytes()
    if vocabulary.kind == "sentencepiece":
        return _SentencePiece(vocabulary.path, range(vocabulary.size - vocabulary.extra_ids, vocabulary.size))
    if vocabulary.kind == "hugging_face":
        return _HuggingFace(vocabulary.path)
    raise InputError(
        f"a vocabulary of kind {vocabulary.kind!r} cannot be read: bytes, sentencepiece, hugging_face can"
    )


def vocabulary_in(folder: Path, settings: dict[str, Any]) -> VocabularyFile:
    """The vocabulary of a folder with a tokenizer of Hugging Face's, such as a converted checkpoint keeps.

    Args:
        folder: with one of `TOKENIZER_FILES`.
        settings: the model's config.json, whose `eos_token_id` and `pad_token_id` are used if there; of
            several the first is EOS, and all end a sequence.

    Raises:
        InputError: no such file in it, or no EOS that is known.
    """
    found = next((folder / name for name in TOKENIZER_FILES if (folder / name).is_file()), None)
    if found is None:
        raise InputError(f"{folder} has no tokenizer: name a token store of its vocabulary")
    given = settings.get("eos_token_id")
    eos_id, *other_ends = given if isinstance(given, list) and given else [given]
    pad_id = settings.get("pad_token_id") or 0
    if found.suffix == ".json":
        opened, kind = _HuggingFace(found), "hugging_face"
    else:
        opened, kind = _SentencePiece(found), "sentencepiece"
        eos_id = opened.eos_id if eos_id is None else eos_id
    if not isinstance(eos_id, int) or eos_id < 0:
        raise InputError(f"{folder}: config.json names no eos_token_id, so that nothing could end")
    ids = (pad_id, eos_id, opened.unk_id)
    return VocabularyFile(kind, opened.size, found, *ids, other_ends=tuple(other_ends))


class _Bytes:
    """UTF-8 bytes after the special ids, as seqio's ByteVocabulary."""

    def encode(self, text: str) -> list[int]:
        return [byte + _SPECIAL_IDS for byte in text.encode("utf-8")]

    def decode(self, ids: Sequence[int]) -> str:
        held = (int(one) - _SPECIAL_IDS for one in ids)
        return bytes(byte for byte in held if 0 <= byte < 256).decode("utf-8", errors="ignore")


class _SentencePiece:
    """A SentencePiece model, as seqio's SentencePieceVocabulary reads and writes with it.

    `no_text` are ids that give nothing: sentinels and modes of pretraining.
    """

    def __init__(self, path: Path | None, no_text: range = range(0)):
        self._no_text = no_text
        try:
            import sentencepiece
        except ImportError as error:
            raise InputError(
                f"{path} needs the library sentencepiece: pip install 'scaling-jax[text]'"
            ) from error
        try:
            self._processor = sentencepiece.SentencePieceProcessor(model_file=str(path))
        except (RuntimeError, OSError) as error:
            raise InputError(f"{path}: not a SentencePiece model") from error
        self.size = self._processor.get_piece_size()
        self.eos_id = self._processor.eos_id()
        self.unk_id = self._processor.unk_id()

    def encode(self, text: str) -> list[int]:
        return self._processor.encode(text)

    def decode(self, ids: Sequence[int]) -> str:
        held = (one for one in map(int, ids) if one not in self._no_text)
        return self._processor.decode([one if one < self.size else self.unk_id for one in held])


class _HuggingFace:
    """A tokenizer.json of the library tokenizers."""

    def __init__(self, path: Path | None):
        try:
            from tokenizers import Tokenizer
        except ImportError as error:
            raise InputError(
                f"{path} needs the library tokenizers: pip install 'scaling-jax[text]'"
            ) from error
        try:
            self._tokenizer = Tokenizer.from_str(Path(path).read_text("utf-8"))
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror}") from error
        except Exception as error:  # what the library raises for a file of another format
            raise InputError(f"{path}: not a tokenizer of the library tokenizers ({error})") from error
        self.size = self._tokenizer.get_vocab_size(with_added_tokens=True)
        unknown = getattr(self._tokenizer.model, "unk_token", None)
        self.unk_id = -1 if unknown is None else self._tokenizer.token_to_id(unknown)

    def encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode([int(one) for one in ids], skip_special_tokens=True)
