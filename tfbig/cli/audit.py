"""tfbig audit --program=my_training.py   what this model, optimizer and strategy will meet
tfbig audit                             all known defects, and whether this installation has them

The program is Python that defines build(), which returns a compiled Keras model; it is run, as by
`python my_training.py`, except for what stands under `if __name__ == "__main__"`. Probes of several
replicas run in processes of their own and take half a minute, where they are asked for.

Exit status 1 where the model meets a defect for certain that tfbig.compat.fixed() does not mend.
"""

import dataclasses
import json
import textwrap
from typing import TYPE_CHECKING

from absl import flags

from tfbig.cli import common

if TYPE_CHECKING:
    from tfbig.compat.audit import Finding

FLAGS = flags.FlagValues()
common.define_program(FLAGS)
flags.DEFINE_bool("json", False, "print JSON", flag_values=FLAGS)


def run(values: flags.FlagValues) -> int:
    """Prints the defects that a program's model meets, or all of them."""
    return _met(values) if values.program else _known(values)


def _met(values: flags.FlagValues) -> int:
    model = common.build(common.program(values.program))
    from tfbig.compat.audit import audit

    findings = audit(model)
    certain = [f for f in findings if not f.when]
    if values.json:
        print(json.dumps([dataclasses.asdict(f) for f in findings]))
    else:
        depends = [f for f in findings if f.when]
        lines = [f"{model.name} meets:" if certain else f"{model.name} meets none for certain."]
        lines += map(_lines, certain)
        lines += ["It depends on you:", *map(_lines, depends)] if depends else []
        print("\n".join(lines))
    return 1 if any(not f.fixed for f in certain) else 0


def _known(values: flags.FlagValues) -> int:
    import keras

    from tfbig import compat
    from tfbig.compat.audit import finding

    rows = [(finding(name), compat.present(name)) for name in compat.DEFECTS]
    if values.json:
        print(json.dumps([{**dataclasses.asdict(f), "present": here} for f, here in rows]))
        return 0
    print(f"Keras {keras.__version__} on TensorFlow has, of {len(rows)} known defects:")
    print("\n".join(_lines(f) for f, here in rows if here))
    absent = [f.id for f, here in rows if not here]
    if absent:
        print(f"and has not {', '.join(absent)}")
    return 0


def _lines(finding: "Finding") -> str:
    """One finding, as it is printed."""
    mend = finding.mend if finding.fixed else f"no fix, but: {finding.mend}"
    parts = [finding.summary, finding.when, f"-> {mend}"]
    first, *rest = [line for part in parts for line in textwrap.wrap(part, 92)]
    return "\n".join([f"  {finding.id:4s} {first}", *(f"       {line}" for line in rest)])
