"""Seconds and memory of loading a checkpoint, each dtype in a process of its own (Linux).

    python tests/benchmarks/bench_loading.py [--model=smollm2] [--dtypes=float32,bfloat16]

Memory is what is resident above what the imports took, at its highest while loading. The bound is
that of the issue: 1.3 times the weights in the chosen dtype, and the largest tensor.
"""

import argparse
import json
import os
import subprocess
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

MB = 2**20


def resident(field: str) -> int:
    """A number of /proc/self/status in bytes: VmRSS is that of now, VmHWM the highest."""
    with open("/proc/self/status") as file:
        line = next(line for line in file if line.startswith(field))
    return int(line.split()[1]) * 1024


def measure(name: str, dtype: str) -> dict:
    """Loads a model in this process."""
    import gguf  # noqa: F401
    import keras
    import safetensors  # noqa: F401
    import tensorflow as tf
    import tokenizers  # noqa: F401

    import tfbig.interop.gguf_models  # noqa: F401
    from tfbig.interop.known import path_of
    from tfbig.interop.loading import load
    from tfbig.interop.tokenizer_gguf import tokenizer_from_gguf  # noqa: F401

    path = path_of(name)
    # TensorFlow's own start: its threads and its allocator.
    keras.ops.matmul(tf.ones((64, 64)), tf.ones((64, 64)))
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the highest is that of now
    before = resident("VmRSS")
    began, cpu = time.perf_counter(), time.process_time()
    model, _ = load(path, dtype)
    taken, cpu = time.perf_counter() - began, time.process_time() - cpu
    peak, after = resident("VmHWM") - before, resident("VmRSS") - before
    sizes = [v.shape.num_elements() * v.dtype.size for v in (w.value for w in model.variables)]
    return {
        "seconds": taken,
        "cpu_seconds": cpu,
        "peak": peak,
        "after": after,
        "weights": sum(sizes),
        "largest": max(sizes),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--dtypes", default="float32,bfloat16")
    parser.add_argument("--measure", help="one dtype, in this process; prints JSON")
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.model, options.measure)))
        return
    for dtype in options.dtypes.split(","):
        command = [sys.executable, __file__, f"--model={options.model}", f"--measure={dtype}"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            sys.exit(done.stderr)
        found = json.loads(done.stdout.splitlines()[-1])
        bound = 1.3 * found["weights"] + found["largest"]
        print(
            f"{dtype:9s} {found['seconds']:5.1f} s ({found['cpu_seconds']:.1f} s of processor); "
            f"weights {found['weights'] / MB:.0f} MB, largest {found['largest'] / MB:.0f} MB; "
            f"peak {found['peak'] / MB:.0f} MB of {bound / MB:.0f} allowed "
            f"({found['peak'] / bound:.2f}), after {found['after'] / MB:.0f} MB"
        )


if __name__ == "__main__":
    main()
