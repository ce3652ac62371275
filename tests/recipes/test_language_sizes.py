"""The dial of the recipe language: by hand, and against the network that is built."""

import pytest

from tfbig.models import language_model
from tfbig.recipes.language_sizes import MOST_PASSES, size_of


def test_what_follows_from_the_dial_by_hand():
    """Width 32 x 4 = 128, in 2 heads of 64; 16 x round(128 / 6) = 336. A block: 4 x 128^2 + 3 x 128
    x 336 + 2 x 128 = 194,816; with 4096 x 128 token vectors and a norm of 128: 1,303,680."""
    tiny = size_of("tiny")
    assert (tiny.num_layers, tiny.hidden_dim, tiny.num_heads) == (4, 128, 2)
    assert (tiny.intermediate_dim, tiny.parameters) == (336, 1_303_680)
    assert tiny.tokens == 3_259_200  # 2.5 a parameter
    assert tiny.steps(corpus_tokens=3_120_719) == 1592  # 3,259,200 / (16 x 128), rounded up
    assert tiny.steps(corpus_tokens=2048) == MOST_PASSES
    # Twice the depth: half the width's root.
    assert size_of(16).learning_rate == pytest.approx(tiny.learning_rate / 2, abs=1e-6)
    assert size_of("6") == size_of("small")
    assert f"{'hidden_dim':16s} 128" in tiny.describe()


@pytest.mark.parametrize("size", ["tiny", "small"])
def test_parameters_are_those_of_the_network(size):
    numbers = size_of(size)
    network = language_model(
        numbers.vocabulary_size, numbers.num_layers, numbers.num_heads, numbers.hidden_dim
    )
    network.build()
    assert network.count_params() == numbers.parameters
    assert network.transformer.blocks[0].feed_forward.intermediate_dim == numbers.intermediate_dim


@pytest.mark.parametrize("size", ["huge", 3, 0, "5", "-2"])
def test_other_sizes_are_refused(size):
    with pytest.raises(ValueError, match="tiny, small, medium, large"):
        size_of(size)
