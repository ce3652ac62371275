"""tfbig recipes"""

from absl import flags

from tfbig import recipes
from tfbig.cli.quiet import start_keras

FLAGS = flags.FlagValues()


def run(values: flags.FlagValues) -> int:
    """Lists the recipes."""
    start_keras()
    for name in recipes.names():
        print(f"{name:12s} {recipes.load(name).summary}")
    return 0
