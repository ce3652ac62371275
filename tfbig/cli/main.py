"""`tfbig VERB --flags`: finds the verb, parses its flags, and runs it.

A verb is a module with `FLAGS`, its own `absl.flags.FlagValues`, and `run(flags) -> exit status`.
No module here imports TensorFlow at its top, so `--help` answers at once.
"""

import difflib
import importlib
import os
import sys
from collections.abc import Sequence

from absl import flags

VERBS = {
    "train": "train a recipe by model.fit, by the loop, or by both",
    "evaluate": "score a saved model on a recipe's held-out data",
    "predict": "predict for the rows of a .csv or .npy file",
    "parity": "find out whether a loop does what model.fit does, and why not",
    "generate": "continue a text with a language model",
    "chat": "talk with a language model",
    "embed": "make vectors of texts, and compare them",
    "convert": "turn a checkpoint into a Hugging Face folder or a .keras file",
    "certify": "prove that a checkpoint computes what transformers computes with it",
    "audit": "list the defects of Keras that a model will meet, each with its mend",
    "recipes": "list the recipes",
}

# The flag that a verb's one argument without a name stands for.
UNNAMED = {"certify": "model"}

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130


class UsageError(ValueError):
    """What the user can mend: said in one line, without a traceback."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        argv: the program's name, the verb and its flags; `sys.argv` by default.

    Returns:
        The exit status: 0; 1 where a check failed; 2 for a wrong call; 130 after Ctrl-C.
    """
    arguments = list(sys.argv if argv is None else argv)[1:]
    if not arguments or arguments[0] in ("help", "-h", "--help", "-help", "--helpfull"):
        print(usage())
        return OK
    verb = arguments[0]
    if verb not in VERBS:
        return _fail(f"there is no verb {verb!r}{_closest(verb, VERBS)}")
    # TensorFlow's start-up messages say nothing to the user of a command.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    module = importlib.import_module(f"tfbig.cli.{verb}")
    try:
        if any(a in ("-h", "--help", "-help", "--helpfull") for a in arguments[1:]):
            print(f"tfbig {verb}: {VERBS[verb]}\n\n{module.__doc__}\n{module.FLAGS}")
            return OK
        module.FLAGS.unparse_flags()
        rest = module.FLAGS([f"tfbig {verb}", *arguments[1:]])[1:]
        if rest and verb in UNNAMED and not module.FLAGS[UNNAMED[verb]].present:
            setattr(module.FLAGS, UNNAMED[verb], rest.pop(0))
        if rest:
            raise UsageError(f"{rest[0]!r} is not a flag: write --name=value")
        return module.run(module.FLAGS)
    except (flags.Error, UsageError, ImportError) as error:
        return _fail(f"{verb}: {error}")
    except OSError as error:  # a folder that cannot be written, a full disk
        return _fail(f"{verb}: {error}")
    except KeyboardInterrupt as interrupt:
        notes = getattr(interrupt, "__notes__", [])
        print("\n".join(["", "tfbig: interrupted.", *notes]), file=sys.stderr)
        return INTERRUPTED
    finally:
        module.FLAGS.unparse_flags()


def usage() -> str:
    """What `tfbig --help` prints."""
    verbs = "\n".join(f"  {verb:10s} {summary}" for verb, summary in VERBS.items())
    return (
        "tfbig: big models in TensorFlow and Keras 3\n\n"
        f"usage: tfbig VERB --flag=value ...\n\n{verbs}\n\n"
        "tfbig VERB --help tells the flags of a verb; --flagfile=FILE reads flags from a file."
    )


def _closest(word: str, words) -> str:
    close = difflib.get_close_matches(word, words, n=1)
    return f"; did you mean {close[0]!r}?" if close else f": choose from {', '.join(words)}"


def _fail(message: str) -> int:
    print(f"tfbig: {message}", file=sys.stderr)
    return USAGE
