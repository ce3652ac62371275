"""The stages of a step, each replayed as `fit` takes it; see `tfbig.parity.explain`."""
