"""Networks: plain subclassed Keras models, of `keras.layers` and `keras.ops` only."""

from tfbig.models.attention import Attention
from tfbig.models.cache import KeyValueCache
from tfbig.models.encoders import DualEncoder, SpeechEncoder, TextEncoder, VisionTransformer
from tfbig.models.feed_forward import FeedForward, GatedFeedForward, gelu_tanh, quick_gelu
from tfbig.models.fronts import PatchFront, SoundFront
from tfbig.models.heads import Classifier, Head, TiedHead, Transform, UnitLength
from tfbig.models.language_model import CausalLM, MaskedLM, language_model
from tfbig.models.masks import Causal, Everywhere
from tfbig.models.mixture import MixtureOfExperts, balance_loss
from tfbig.models.neural_network import NeuralNetwork
from tfbig.models.norms import RMSNorm
from tfbig.models.pooling import EndToken, FirstToken, LastToken, MeanToken
from tfbig.models.positions import LearnedPositions, RelativeBias, SinusoidalPositions
from tfbig.models.rotary import LongRotary, Rotary, rotary_frequencies
from tfbig.models.scores import DotProduct, SoftCappedDotProduct
from tfbig.models.seq2seq import Seq2Seq
from tfbig.models.token_fronts import CountingTokenFront, TokenFront
from tfbig.models.transformer import Block, PostNorm, PreNorm, SandwichNorm, Transformer

__all__ = [
    "Attention",
    "Block",
    "Causal",
    "CausalLM",
    "Classifier",
    "CountingTokenFront",
    "DotProduct",
    "DualEncoder",
    "EndToken",
    "Everywhere",
    "FeedForward",
    "FirstToken",
    "GatedFeedForward",
    "Head",
    "KeyValueCache",
    "LastToken",
    "LearnedPositions",
    "LongRotary",
    "MaskedLM",
    "MeanToken",
    "MixtureOfExperts",
    "NeuralNetwork",
    "PatchFront",
    "PostNorm",
    "PreNorm",
    "RMSNorm",
    "RelativeBias",
    "Rotary",
    "SandwichNorm",
    "Seq2Seq",
    "SinusoidalPositions",
    "SoftCappedDotProduct",
    "SoundFront",
    "SpeechEncoder",
    "TextEncoder",
    "TiedHead",
    "TokenFront",
    "Transform",
    "Transformer",
    "UnitLength",
    "VisionTransformer",
    "balance_loss",
    "gelu_tanh",
    "language_model",
    "quick_gelu",
    "rotary_frequencies",
]
