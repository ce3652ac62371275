"""Generation: the compiled prefill and step, samplers, beams, streaming, for any language model."""

from tfbig.generation.beam import Beam, beam_search
from tfbig.generation.generate import Generated, generate
from tfbig.generation.samplers import (
    Chain,
    Greedy,
    MinP,
    RepetitionPenalty,
    Sampler,
    Temperature,
    TopK,
    TopP,
    sampler_of,
)
from tfbig.generation.text import GeneratedText, generate_text, stream

__all__ = [
    "Beam",
    "Chain",
    "Generated",
    "GeneratedText",
    "Greedy",
    "MinP",
    "RepetitionPenalty",
    "Sampler",
    "Temperature",
    "TopK",
    "TopP",
    "beam_search",
    "generate",
    "generate_text",
    "sampler_of",
    "stream",
]
