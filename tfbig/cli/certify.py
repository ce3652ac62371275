"""tfbig certify FOLDER --output=certificate.json

Loads a Hugging Face folder (or a GGUF file, saved as a folder first; or smollm2, minilm) here and
with transformers, which must be installed, with torch, and compares: outputs, hidden states,
gradients, the weights after five steps of AdamW, and what is written with what was read. Takes
memory for about ten times the weights in float32, and for a hundred million of them some minutes.

Exit status 1 where they differ.
"""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from tfbig.cli import common
from tfbig.cli.main import UsageError
from tfbig.cli.quiet import start_keras

if TYPE_CHECKING:
    from tfbig.interop.certificate import Certificate

FLAGS = flags.FlagValues()
# Flags may also stand behind the folder.
FLAGS.set_gnu_getopt()
flags.DEFINE_string("model", None, "the folder, a .gguf file, smollm2 or minilm", flag_values=FLAGS)
flags.DEFINE_string(
    "output", None, "where the certificate goes, .json; only printed by default", flag_values=FLAGS
)


def run(values: flags.FlagValues) -> int:
    """Makes the certificate, prints and writes it."""
    if not values.model:
        raise UsageError("the folder is missing: tfbig certify FOLDER")
    output = Path(values.output) if values.output else None
    if output and output.suffix != ".json":
        raise UsageError(f"--output ends in .json, and is {output}")
    if output and not output.parent.is_dir():
        raise UsageError(f"there is no folder {output.parent}")
    start_keras()
    from tfbig.interop import certificate as certificates
    from tfbig.interop.known import path_of

    path = path_of(values.model)
    print(f"{path}: loaded and trained here and with transformers ...", file=sys.stderr)
    begin = time.perf_counter()
    with common.mendable():
        certificate = certificates.certify(path)
    print(f"compared in {time.perf_counter() - begin:.0f} s", file=sys.stderr)
    print(table(certificate))
    if output:
        certificate.write(output)
        print(f"written to {output}")
    return 0 if certificate.passed else 1


def table(certificate: "Certificate") -> str:
    """A certificate for the eye: what was measured, what is allowed, and the verdict."""
    states = certificate.hidden_states
    errors = {
        "outputs": certificate.outputs,
        "outputs, padded on the left": certificate.left_padded,
        f"hidden states of {len(states)} layers, the largest": max(states, default=None),
        "gradients": certificate.gradients,
        "weights after 5 steps of AdamW": certificate.weights_after_steps,
    }
    rows = [f"{certificate.model}: the largest error of", ""]
    for what, error in errors.items():
        said = "not measured" if error is None else f"{error:.1e}"
        trained = what.startswith(("gradients", "weights"))
        allowed = certificate.tolerance_of_gradients if trained else certificate.tolerance
        far = error is not None and not error <= allowed
        rows.append(f"  {what:45s} {said:>12s}" + "  TOO LARGE" * far)
    written = "bit for bit" if certificate.round_trip else "CHANGED"
    rows += [f"  {'written again':45s} {written:>12s}", ""]
    if certificate.zero_gradient:
        zero = len(certificate.zero_gradient)
        rows.append(f"{zero} variables have a gradient of zero and are left out.")
    versions = ", ".join(f"{name} {number}" for name, number in certificate.versions.items())
    verdict = "PASSED" if certificate.passed else "FAILED"
    rounding = (
        f"A rounding of the weights alone moves PyTorch's gradients by {certificate.rounding:.1e}."
    )
    conclusion = (
        f"{verdict}: {certificate.tolerance:.0e} is allowed, and "
        f"{certificate.tolerance_of_gradients:.0e} for gradients and trained weights."
    )
    return "\n".join([*rows, rounding, versions, conclusion])
