"""Lines of text in, what a checkpoint writes after each out."""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from scaling_jax.data.pieces import Pieces, pieces_of, vocabulary_in
from scaling_jax.data.store import Split, TokenStore, VocabularyFile, open_store
from scaling_jax.errors import InputError
from scaling_jax.evaluation import positions
from scaling_jax.evaluation.decoding import Decoding, generated_batches
from scaling_jax.evaluation.prompts import Shots, shot_prompts
from scaling_jax.tasks import json_records
from scaling_jax.training import checkpoints, data_sets
from scaling_jax.training.bases import Tuned, load_checkpoint
from scaling_jax.training.mesh import Layout

# Batches whose prompts are sorted by length together; their answers come out together.
BATCHES_AT_ONCE = 16
_LOOKED_AT = 256


class Line(NamedTuple):
    """One input and where it stands: "FILE:NUMBER"."""

    where: str
    text: str


@dataclasses.dataclass(frozen=True)
class Opened:
    """A checkpoint ready to answer.

    Attributes:
        model: program and arrays.
        vocabulary, pieces: of its tokens.
        start_id: begins what a decoder reads.
        ends: what inputs end in, (EOS,) or nothing, as those that the model was tuned on.
        longest_input: tokens of an input, as the store was prepared; None is no limit.
        longest: positions that the model was made for; None is no limit.
        examples: the store's training split, for shots.
    """

    model: Tuned
    vocabulary: VocabularyFile
    pieces: Pieces
    start_id: int
    ends: tuple[int, ...]
    longest_input: int | None
    longest: int | None
    examples: Split | None


def read_lines(name: str, texts: Iterable[str]) -> Iterator[Line]:
    """The inputs among the lines of a file; lines without text are passed over.

    Where the first line with text begins with "{" the file is JSONL: one object per line, its field `inputs`
    is read. Any other holds one input per line.

    Args:
        name: of the file, for messages.
        texts: its lines, see `text_files`.

    Raises:
        InputError: naming file, line and column: no JSON, or no text in `inputs`.
    """
    is_jsonl = None
    for number, text in enumerate(texts, 1):
        if not text.strip():
            continue
        if is_jsonl is None:
            is_jsonl = text.lstrip().startswith("{")
        where = f"{name}:{number}"
        yield Line(where, _inputs(where, text) if is_jsonl else text)


def _inputs(where: str, text: str) -> str:
    held = json_records.value_of(where, text)
    if not isinstance(held, dict) or not isinstance(held.get("inputs"), str):
        raise InputError(f'{where}: an object with a text "inputs" is needed, such as {{"inputs": "..."}}')
    try:
        held["inputs"].encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(f'{where}: "inputs" is not Unicode text ({error.reason})') from error
    return held["inputs"]


def open_checkpoint(checkpoint: Path, store: Path | None, layout: Layout, base: Path | None = None) -> Opened:
    """A pretrained or tuned checkpoint with the vocabulary of its tokens.

    Args:
        checkpoint: its folder.
        store: a token store of its vocabulary; None takes the tokenizer that a converted checkpoint keeps.
        layout: where arrays go.
        base: where a tuned checkpoint's base is, if not where it was.

    Raises:
        InputError: no checkpoint, another vocabulary, no tokenizer, or see `bases.load_tuned`.
    """
    about = checkpoints.about(checkpoint)
    origin = _origin(checkpoint, base)
    settings = checkpoints.about(origin).get("hugging_face") or {}
    token_store = None
    if store is not None:
        token_store = open_store(store)
        data_sets.check_vocabulary(token_store, checkpoint, about)
        vocabulary = token_store.vocabulary
    else:
        vocabulary = vocabulary_in(origin / "tokenizer", settings)
    pieces = pieces_of(vocabulary)
    model = load_checkpoint(checkpoint, layout, base)
    start_id = about.get("start_id")
    pairs = token_store if token_store and "inputs" in token_store.manifest["feature_lengths"] else None
    return Opened(
        model,
        vocabulary,
        pieces,
        vocabulary.pad_id if start_id is None else start_id,
        _ends(pairs, vocabulary, model),
        pairs.manifest["feature_lengths"]["inputs"] if pairs else None,
        settings.get("max_position_embeddings"),
        pairs.split("train") if pairs and "train" in pairs.manifest["splits"] else None,
    )


def _origin(checkpoint: Path, base: Path | None) -> Path:
    """The pretrained checkpoint that a tuned one goes back to, as far as it is there."""
    about = checkpoints.about(checkpoint)
    while about["kind"] == "tuned":
        below = base or Path(about["base"]["path"])
        if not checkpoints.exists(below):
            break
        checkpoint, about, base = below, checkpoints.about(below), None
    return checkpoint


def _ends(store: TokenStore | None, vocabulary: VocabularyFile, model: Tuned) -> tuple[int, ...]:
    """EOS where the store's inputs end in it; without a store, where an encoder reads them, as T5's."""
    if store is None:
        return (vocabulary.eos_id,) if model.program.model.encoder_layers else ()
    split = store.split(next(iter(store.manifest["splits"])))
    seen = [split[index]["inputs"] for index in range(min(len(split), _LOOKED_AT))]
    return (vocabulary.eos_id,) if all(len(one) and one[-1] == vocabulary.eos_id for one in seen) else ()


def answers(
    opened: Opened,
    lines: Iterable[Line],
    decoding: Decoding,
    shots: Shots,
    cut: Callable[[Line, int], None] | None = None,
    done: Callable[[int], None] = lambda count: None,
) -> Iterator[dict[str, Any]]:
    """{inputs, output, score, tokens, finished} of every line, in order.

    An answer for which the model went beyond the positions that it was made for has {beyond: true} too.

    Args:
        opened: the checkpoint.
        lines: inputs; all of them are looked at before the first is answered, if they are a sequence.
        decoding: how tokens are chosen.
        shots: examples to show first.
        cut: gets each line with more tokens than allowed, and how many it has, which is then cut at the
            end; None refuses it.
        done: gets the number of answers of every batch that is ready.

    Raises:
        InputError: a line that is too long, or shots without a store that has examples.
    """
    if shots.count and opened.examples is None:
        raise InputError("shots are training examples: name a store with inputs and targets with --store")
    if isinstance(lines, Sequence):
        for begin in range(0, len(lines), _LOOKED_AT):
            _prompts(opened, lines[begin : begin + _LOOKED_AT], shots, cut and (lambda line, tokens: None))
    lines, first = iter(lines), 0
    while chunk := list(itertools.islice(lines, BATCHES_AT_ONCE * decoding.batch_size)):
        prompts = _prompts(opened, chunk, shots, cut)
        found = {}
        model = opened.model
        for batch in generated_batches(
            model.program,
            model.tuned,
            model.base,
            prompts,
            decoding,
            opened.vocabulary,
            opened.start_id,
            first,
        ):
            found |= batch
            done(len(batch))
        first += len(chunk)
        for index, line in enumerate(chunk):
            made = found[index]
            answer = {
                "inputs": line.text,
                "output": opened.pieces.decode(made.tokens),
                "score": made.score,
                "tokens": len(made.tokens),
                "finished": made.finished,
            }
            beyond = positions.are_beyond(model.program, opened.longest, prompts[index], made)
            yield answer | ({"beyond": True} if beyond else {})


def _prompts(
    opened: Opened,
    lines: Sequence[Line],
    shots: Shots,
    cut: Callable[[Line, int], None] | None,
) -> list[np.ndarray]:
    inputs = []
    for line in lines:
        ids, ends = opened.pieces.encode(line.text), opened.ends
        room = None if opened.longest_input is None else opened.longest_input - len(ends)
        if room is not None and len(ids) > room:
            if cut is None:
                raise InputError(
                    f"{line.where}: {len(ids) + len(ends)} tokens, the store allows inputs of "
                    f"{opened.longest_input}: shorten it, or allow cutting with --cut"
                )
            cut(line, len(ids) + len(ends))
            ids = ids[:room]
        inputs.append(np.array([*ids, *ends], np.int32))
    return shot_prompts(inputs, opened.examples, opened.vocabulary, shots)
