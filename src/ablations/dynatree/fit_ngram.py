"""Job: count the n-grams of the training splits of texts, tokenised as the target does."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file
from tqdm import tqdm

from ablations.core.artefact import new_artefact
from ablations.core.errors import UserError
from ablations.core.job import Run, main
from ablations.dynatree.drafters.ngram_counts import COUNTS_FILE, HASH_BASE, HASH_MASK
from ablations.lm.checkpoint import load_tokenizer
from ablations.lm.corpus import read_corpus
from ablations.specs.dynatree.fit_ngram import NgramSpec

# Longer lists of followers cost time at every node and do not change the most probable ones.
MAX_FOLLOWERS = 64


def count_ngrams(
    documents: Sequence[Sequence[int]], order: int, vocabulary: int, max_followers: int = MAX_FOLLOWERS
) -> dict[str, NDArray]:
    """Count n-grams of all lengths up to `order`, within documents.

    Args:
        documents: Token ids of each document.
        order: Longest n-gram.
        vocabulary: Number of token ids.
        max_followers: Most followers listed per context; totals and types count all followers.

    Returns:
        Arrays as `NgramCounts` takes them.
    """
    tokens = np.concatenate([np.asarray(document, dtype=np.int64) for document in documents])
    age = np.concatenate([np.arange(len(document)) for document in documents])
    arrays = {"unigrams": np.bincount(tokens, minlength=vocabulary).astype(np.int32)}
    hashes = np.zeros_like(tokens)
    power = 1
    for length in range(1, min(order, len(tokens))):
        # Hash of the context before each token; int64 wraps around, which keeps the value modulo 2^63.
        hashes[length:] += (tokens[:-length] + 1) * np.int64(power)
        power = (power * HASH_BASE) & HASH_MASK
        known = age >= length
        table = _followers(hashes[known] & HASH_MASK, tokens[known], max_followers)
        arrays |= {f"{name}.{length}": array for name, array in table.items()}
    return arrays


def _followers(contexts: NDArray, tokens: NDArray, max_followers: int) -> dict[str, NDArray]:
    order = np.lexsort((tokens, contexts))
    contexts, tokens = contexts[order], tokens[order]
    pairs = np.flatnonzero(_changes(contexts) | _changes(tokens))
    counts = np.diff(np.append(pairs, len(tokens)))
    pair_contexts, pair_tokens = contexts[pairs], tokens[pairs]

    starts = np.flatnonzero(_changes(pair_contexts))
    types = np.diff(np.append(starts, len(pairs)))
    owner = np.repeat(np.arange(len(starts)), types)
    frequent_first = np.lexsort((pair_tokens, -counts, owner))
    rank = np.arange(len(pairs)) - starts[owner]
    listed = frequent_first[rank < max_followers]
    return {
        "contexts": pair_contexts[starts],
        "totals": np.bincount(owner, weights=counts, minlength=len(starts)).astype(np.int32),
        "types": types.astype(np.int32),
        "offsets": np.append(0, np.cumsum(np.minimum(types, max_followers))),
        "followers": pair_tokens[listed].astype(np.int32),
        "counts": counts[listed].astype(np.int32),
    }


def _changes(values: NDArray) -> NDArray:
    return np.concatenate(([True], values[1:] != values[:-1]))[: len(values)]


def _training_texts(manifest: Path) -> list[str]:
    texts = [document.text for document in read_corpus(manifest) if document.split == "train"]
    if not texts:
        raise UserError(f"{manifest}: no training documents to count n-grams of; use a larger text")
    return texts


def run(run: Run[NgramSpec]) -> None:
    """Count the training splits of the spec's texts with the tokenizer of input `model`.

    Raises:
        UserError: an input is missing or corrupt, or a text has no training documents.
    """
    tokenizer = load_tokenizer(run.job.path("model"))
    texts = [text for name in run.spec.texts for text in _training_texts(run.job.path(name))]
    # Without BOS, which occurs only at the beginning of a prompt, where nothing is drafted.
    documents = [
        tokenizer(text, add_special_tokens=False, verbose=False).input_ids
        for text in tqdm(texts, desc="tokenise", mininterval=2)
    ]
    facts = {"documents": len(documents), "tokens": sum(map(len, documents)), "order": run.spec.order}
    with new_artefact(run, facts) as folder:
        save_file(count_ngrams(documents, run.spec.order, len(tokenizer)), folder / COUNTS_FILE)


if __name__ == "__main__":
    main("ablations.dynatree.fit_ngram", NgramSpec, run, "Count the n-grams of a training split.")
