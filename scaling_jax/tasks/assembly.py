"""Encoded blocks to a token store: cuts windows or examples, counts, keeps texts, writes.

Whoever made the blocks, this process or workers of Apache Beam, they come here in their order, and
where one ends and the next begins does not show in the store.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from scaling_jax.data.store import TokenStore, VocabularyFile, write_store
from scaling_jax.errors import InputError
from scaling_jax.tasks.encoded import Encoded
from scaling_jax.tasks.registry import PAIRS
from scaling_jax.tasks.store_request import StoreRequest

_SECONDS_BETWEEN_LINES = 5.0


def assemble(
    request: StoreRequest,
    path: Path,
    vocabulary: VocabularyFile,
    settings: Mapping[str, Any],
    encoded: Callable[[str], Iterator[Encoded]],
    say: Callable[[str], None],
) -> TokenStore:
    """Writes the store of a request whole or not at all.

    Args:
        request: what was asked for.
        path: folder of the store.
        vocabulary: of the token ids.
        settings: written to the manifest.
        encoded: the blocks of a split, in order; each split is read once, from its beginning.
        say: gets a line for the screen.

    Raises:
        InputError: whatever reading the blocks raises; a split too small for a window; see `write_store`.
    """
    facts: dict[str, Any] = {}
    truncated: dict[str, dict[str, int]] = {}
    tokens: dict[str, int] = {}
    texts: dict[str, list[Mapping[str, str]]] = {
        split: [] for split in request.source.splits if split != "train" and request.task.features == PAIRS
    }

    def examples(split: str) -> Iterator[Mapping[str, np.ndarray]]:
        truncated[split], tokens[split] = dict.fromkeys(request.feature_lengths, 0), 0
        blocks = _with_progress(encoded(split), f"{request.name} {split}", say)
        if split in texts:
            blocks = _keeping(blocks, texts[split])
        if request.window:
            yield from _windows(blocks, request.window, f"{request.name}: split {split!r}")
        else:
            for example in _pairs(blocks, request, vocabulary.eos_id, truncated[split]):
                tokens[split] += len(example["targets"])
                yield example
        if list(request.source.splits)[-1] == split:
            facts.update(_facts(request, tokens, truncated))

    return write_store(
        path,
        task=request.task.versioned_name,
        vocabulary=vocabulary,
        feature_lengths=request.feature_lengths,
        splits={split: examples(split) for split in request.source.splits},
        facts=facts,  # filled while the splits are read; written after them
        seed=request.source.seed,
        settings=settings,
        texts=texts,
        groups=request.source.groups,
        scoring={
            "references": request.task.references,
            "target_language": request.source.target_language,
            "scores": list(request.task.scores),
        },
    )


def _keeping(blocks: Iterator[Encoded], rows: list[Mapping[str, str]]) -> Iterator[Encoded]:
    """Passes the blocks on and keeps their texts, a mapping for each example."""
    for block in blocks:
        columns = zip(*block.texts.values(), strict=True)
        rows.extend(dict(zip(block.texts, row, strict=True)) for row in columns)
        yield block


def _windows(blocks: Iterator[Encoded], window: int, name: str) -> Iterator[Mapping[str, np.ndarray]]:
    """Cuts the stream of documents; what is left at its end, less than a window, is dropped."""
    rest = np.zeros(0, np.int32)
    cut = 0
    for block in blocks:
        stream = np.concatenate([rest, block.tokens["targets"].tokens])
        whole = len(stream) // window * window
        for row in stream[:whole].reshape(-1, window):
            yield {"targets": row}
        rest = stream[whole:]
        cut += whole
    if not cut:
        raise InputError(
            f"{name} has {len(rest)} tokens, less than one window of {window}: give it more text"
        )


def _pairs(
    blocks: Iterator[Encoded], request: StoreRequest, eos_id: int, truncated: dict[str, int]
) -> Iterator[Mapping[str, np.ndarray]]:
    """Examples cut to their feature lengths as seqio cuts them: what ends in EOS still does."""
    features = tuple(request.feature_lengths)
    for block in blocks:
        offsets = {feature: block.tokens[feature].offsets.tolist() for feature in features}
        for row in range(len(block.tokens[features[0]])):
            example = {}
            for feature, limit in request.feature_lengths.items():
                begin, end = offsets[feature][row : row + 2]
                ids = block.tokens[feature].tokens[begin:end]
                if len(ids) > limit:
                    truncated[feature] += 1
                    ids = ids[:limit].copy()
                    if feature in request.task.ends:
                        ids[-1] = eos_id
                example[feature] = ids
            yield example


def _facts(
    request: StoreRequest, tokens: Mapping[str, int], truncated: Mapping[str, Mapping[str, int]]
) -> dict[str, Any]:
    if request.window:
        return {}
    cut = {split: dict(counts) for split, counts in truncated.items()}
    # What is known of whole examples is not known of cut ones.
    whole = {split: count for split, count in tokens.items() if not sum(cut[split].values())}
    return {"truncated_examples": cut, **request.source.facts(whole)}


def _with_progress(blocks: Iterator[Encoded], name: str, say: Callable[[str], None]) -> Iterator[Encoded]:
    """Passes the blocks on and says how far it is every few seconds."""
    last, examples = time.monotonic(), 0
    for block in blocks:
        yield block
        examples += len(next(iter(block.tokens.values())))
        if time.monotonic() - last > _SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            say(f"  {name}: {examples:,} read so far")


def summary(path: Path, manifest: Mapping[str, Any]) -> Iterator[str]:
    """Lines for the screen about a store that was made."""
    yield f"{path}: {manifest['task']}"
    for split, entry in manifest["splits"].items():
        tokens = ", ".join(f"{count:,} tokens of {feature}" for feature, count in entry["tokens"].items())
        yield f"  {split}: {entry['examples']:,} examples, {tokens}"
    for split, counts in manifest["facts"].get("truncated_examples", {}).items():
        for feature, count in counts.items():
            if count:
                limit = manifest["feature_lengths"][feature]
                yield f"  {split}: {count:,} {feature} were longer than {limit} tokens and are cut"
    entropy = manifest["facts"].get("entropy_per_target_token", {})
    if entropy:
        values = ", ".join(f"{split} {value:.4f}" for split, value in entropy.items())
        yield f"  true entropy given the source, nats per target token: {values}"
