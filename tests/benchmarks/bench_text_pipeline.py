"""Tokens per second of the text pipeline, from documents to batches that a model trains on.

    python tests/benchmarks/bench_text_pipeline.py [--seconds=2]

The corpus is the standard library's, tokenized by a byte-level BPE of 8,000 trained on it; then the
same tokens as documents of 30 tokens, the hardest case, since a row is then made of many pieces.
Batches are taken one by one by a Python iterator that does nothing with them: what a training step
can ask for at most. Last, what a training step does ask for: that of the recipe `language` at size
tiny, which is the fastest there is. The pipeline must give ten times as many.
"""

import argparse
import functools
import hashlib
import os
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf

from tfbig.data import (
    TokensInMemory,
    evaluation_rows,
    packed,
    python_documents,
    split_documents,
    train_byte_bpe,
    write_shards,
)
from tfbig.models import language_model
from tfbig.recipes.language_plan import compiled, muon
from tfbig.recipes.language_sizes import size_of
from tfbig.training import train_step


def tokens_per_second(dataset, length: int, batch_size: int, seconds: float) -> float:
    iterator = iter(dataset)
    for _ in range(10):  # the layout of the epoch, and what was made in advance
        next(iterator)
    begin, batches = time.perf_counter(), 0
    while (taken := time.perf_counter() - begin) < seconds:
        next(iterator)
        batches += 1
    return batches * length * batch_size / taken


def step_tokens_per_second(shards, seconds: float) -> float:
    """The training step of size tiny, on one batch again and again: no pipeline beside it."""
    size = size_of("tiny")
    model = language_model(size.vocabulary_size, size.num_layers, size.num_heads, size.hidden_dim)
    compiled(model, muon(size.learning_rate, 1000))
    inputs, targets, weights = next(iter(packed(shards, size.length, size.batch_size)))
    # The corpus has more tokens than this model, and which ones they are costs nothing.
    inputs["token_ids"] %= size.vocabulary_size
    batch = inputs, targets % size.vocabulary_size, weights
    step = tf.function(functools.partial(train_step, model))
    step(batch)
    begin, steps = time.perf_counter(), 0
    while (taken := time.perf_counter() - begin) < seconds:
        step(batch)
        steps += 1
    return steps * size.length * size.batch_size / taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2)
    seconds = parser.parse_args().seconds

    begin = time.perf_counter()
    split = split_documents(python_documents())
    print(f"{split.describe()}: {time.perf_counter() - begin:.2f} s")
    begin = time.perf_counter()
    tokenizer = train_byte_bpe((text for _, text in split.train), 8000)
    print(f"tokenizer of {tokenizer.get_vocab_size()}: {time.perf_counter() - begin:.2f} s")
    with tempfile.TemporaryDirectory() as folder:
        for attempt in ("written", "reused"):
            begin = time.perf_counter()
            shards = write_shards(
                split.train,
                lambda text: tokenizer.encode(text).ids,
                folder,
                eos_id=tokenizer.token_to_id("<|endoftext|>"),
                vocabulary_size=tokenizer.get_vocab_size(),
                tokenizer_hash=hashlib.sha256(tokenizer.to_str().encode()).hexdigest(),
                shard_tokens=2**20,
            )
            taken = time.perf_counter() - begin
            print(
                f"{shards.tokens} tokens {attempt}: {taken:.2f} s, "
                f"{shards.bytes / taken / 1e6:.1f} MB/s"
            )
        flat = np.concatenate(list(shards.documents()))
        short = TokensInMemory(np.array_split(flat, len(flat) // 30), shards.eos_id)
        print(f"{'length':>7} {'batch':>6} {'packed':>10} {'short ones':>10} {'evaluation':>10}")
        for length, batch_size in ((128, 16), (256, 16), (512, 32), (1024, 32)):
            rates = [
                tokens_per_second(dataset, length, batch_size, seconds)
                for dataset in (
                    packed(shards, length, batch_size, epochs=None),
                    packed(short, length, batch_size, epochs=None),
                    evaluation_rows(shards, length, batch_size).repeat(),
                )
            ]
            print(f"{length:7d} {batch_size:6d} " + " ".join(f"{r / 1e6:8.2f} M" for r in rates))
            if (length, batch_size) == (128, 16):
                given = rates[0]
        taken = step_tokens_per_second(shards, 2 * seconds)
    print(f"a step of size tiny takes {taken / 1e3:.1f} k tokens/s; the pipeline gives", end=" ")
    print(f"{given / taken:.0f} times as many")
    if given < 10 * taken:
        raise SystemExit("The pipeline gives less than 10 times the tokens that a step takes.")


if __name__ == "__main__":
    main()
