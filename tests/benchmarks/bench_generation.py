"""Tokens per second of greedy decoding beside `transformers`' `generate`, on the same weights.

    python tests/benchmarks/bench_generation.py [--rounds=5] [--new=48] [--batch=1] [--threads=0]

A random Llama of SmolLM2-135M's size, in float32: speed does not depend on the weights. Both run
alternately in one process; what is traced is not counted, but printed. Prints the ratio of the
medians, and what must be equal: the ids. On a machine with other work give --threads=1: PyTorch's
threads wait for each other at every operation.
"""

import argparse
import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf

try:
    import torch
    import transformers
except ImportError:  # `make bench` does without
    print("bench_generation: left out, the peer is missing: pip install torch transformers")
    raise SystemExit(0) from None

from tfbig.generation import generate
from tfbig.interop.torch_modules import from_torch

PROMPT = 60


def smollm2() -> transformers.PreTrainedModel:
    """A random network of SmolLM2-135M's size."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        tie_word_embeddings=True,
        eos_token_id=None,
        pad_token_id=0,
    )
    return transformers.LlamaForCausalLM(config).eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--new", type=int, default=48)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--jit_compile", action="store_true", help="XLA for tfbig")
    parser.add_argument("--threads", type=int, default=0, help="of each; 0: as they choose")
    options = parser.parse_args()
    if options.threads:
        tf.config.threading.set_intra_op_parallelism_threads(options.threads)
        tf.config.threading.set_inter_op_parallelism_threads(options.threads)
        torch.set_num_threads(options.threads)
    theirs = smollm2()
    ours = from_torch(theirs)
    shape = (options.batch, PROMPT)
    prompts = np.random.default_rng(0).integers(1, 49152, shape).tolist()
    ids = torch.tensor(prompts)

    def by_tfbig(new: int) -> list[list[int]]:
        results = generate(ours, prompts, max_new_tokens=new, jit_compile=options.jit_compile)
        return [result.ids for result in results]

    def by_transformers(new: int) -> list[list[int]]:
        with torch.inference_mode():
            found = theirs.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=new, do_sample=False
            )
        return found[:, PROMPT:].tolist()

    runs = {"tfbig": by_tfbig, "transformers": by_transformers}
    seconds: dict[tuple[str, int], list[float]] = {}
    texts = {}
    for round_ in range(options.rounds + 1):
        # The order is swapped each round: the second to run meets a warmer machine.
        for name in sorted(runs, reverse=bool(round_ % 2)):
            for new in (1, options.new):
                begin = time.perf_counter()
                texts[name] = runs[name](new)
                taken = time.perf_counter() - begin
                if round_:
                    seconds.setdefault((name, new), []).append(taken)
                else:
                    print(f"{name:12s} {new:3d} tokens, the first time: {taken:6.2f} s")
    print(f"the same ids: {texts['tfbig'] == texts['transformers']}")
    speed = {}
    for name in runs:
        first = statistics.median(seconds[name, 1])
        whole = statistics.median(seconds[name, options.new])
        speed[name] = options.batch * options.new / whole
        step = (whole - first) / max(options.new - 1, 1)
        print(
            f"{name:12s} {speed[name]:6.1f} tokens/s; the first token {1000 * first:6.1f} ms, "
            f"each next {1000 * step:5.1f} ms; of {options.rounds} rounds "
            f"{min(seconds[name, options.new]):.2f} to {max(seconds[name, options.new]):.2f} s"
        )
    print(f"ratio (tfbig / transformers) {speed['tfbig'] / speed['transformers']:.2f}")


if __name__ == "__main__":
    main()
