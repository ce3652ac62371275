"""A real model: SmolLM2-135M-Instruct, read from its GGUF file here and by transformers."""

import numpy as np
import pytest

from tfbig.generation import generate
from tfbig.interop.known import path_of
from tfbig.interop.loading import load

torch = pytest.importorskip("torch", reason="the oracle is PyTorch")
transformers = pytest.importorskip("transformers", reason="the oracle is transformers")

PROMPTS = [
    "The capital of France is",
    "Once upon a time, in a small village by the sea,",
    "def fibonacci(n):\n",
    "The three laws of thermodynamics are:",
    "Q: What is 12 times 12?\nA:",
    "Dear Professor,\n\nI am writing to",
    "<|im_start|>user\nName three colours.<|im_end|>\n<|im_start|>assistant\n",
    "Water boils at",
    "Il était une fois",
    "import numpy as np\n\n# Mean of an array, by hand\n",
]


@pytest.fixture(scope="module")
def ours():
    try:
        path = path_of("smollm2")
    except ImportError as error:
        pytest.skip(str(error))
    return load(path)


@pytest.fixture(scope="module")
def theirs():
    pytest.importorskip("accelerate", reason="transformers reads GGUF files with accelerate")
    path = path_of("smollm2")
    return transformers.AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32, attn_implementation="eager"
    ).eval()


def test_one_tensor_is_what_gguf_dequantises(ours):
    gguf = pytest.importorskip("gguf", reason="the oracle is the gguf package")
    reader = gguf.GGUFReader(path_of("smollm2"))
    stored = next(t for t in reader.tensors if t.name == "blk.7.ffn_down.weight")
    expected = gguf.quants.dequantize(stored.data, stored.tensor_type)
    kernel = ours[0].transformer.blocks[7].feed_forward.down.kernel
    np.testing.assert_array_equal(np.asarray(kernel), expected.T)


def same_greedy_ids(ours, theirs, prompts, new):
    """Both in one batch, padded on the left."""
    model, tokenizer = ours
    rows = [tokenizer.encode(prompt) for prompt in prompts]
    ends = sorted(tokenizer.eos_ids)
    found = generate(model, rows, max_new_tokens=new, eos_ids=ends)
    ids, mask = tokenizer.pad(rows, side="left")
    with torch.inference_mode():
        texts = theirs.generate(
            torch.tensor(ids),
            attention_mask=torch.tensor(mask),
            max_new_tokens=new,
            do_sample=False,
            eos_token_id=ends,
            pad_token_id=ends[0],
        )
    for result, text, prompt in zip(found, texts[:, ids.shape[1] :].tolist(), prompts, strict=True):
        end = next((n for n, i in enumerate(text) if i in ends), new)
        assert result.ids == text[:end], prompt
        assert result.reason == ("eos" if end < new else "length"), prompt


def test_greedy_text_is_that_of_transformers(ours, theirs):
    same_greedy_ids(ours, theirs, PROMPTS[:2], 16)


@pytest.mark.full  # 640 tokens
def test_greedy_text_is_that_of_transformers_on_ten_prompts(ours, theirs):
    same_greedy_ids(ours, theirs, PROMPTS, 64)
