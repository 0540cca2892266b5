"""Paired differences of a finished study as test data.

``python -m tests.evidence.differences FILE``, in the folder of the study.

What `tests/data/differences.json` holds was measured by the default study of 2026-11-30 with three training
seeds (an AMD EPYC, one thread).
"""

import argparse
import json
import math
from pathlib import Path

from ablations.core.record import read_contract
from ablations.evidence.inputs import PaperInput
from ablations.study.planning.stages import COLLECT_STAMP
from ablations.study.prospects import measured


def main() -> None:
    """Write differences from the baseline in quality, means over seeds, and of two rounds of one arm."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="file to write")
    study = read_contract(Path(COLLECT_STAMP), PaperInput)
    arms = measured(study)
    found: dict[str, dict[str, list[float]]] = {"text": {}, "retrieval": {}, "rounds": {}}
    for measure in ("text", "retrieval"):
        baseline = arms["baseline"].values[measure].mean(axis=1)
        for name in study.settings.confirmatory.sdtp:
            own = arms[name].values[measure].mean(axis=1)
            found[measure][name] = [round(value, 5) for value in own - baseline]
    for name, arm in arms.items():
        pairs = [sample.pairs for record in arm.records for sample in record.samples if len(sample.pairs) > 1]
        if pairs and arm.status == "ok":
            logs = [[math.log(pair.reference / pair.arm) for pair in each[:2]] for each in pairs]
            found["rounds"][name] = [round(second - first, 5) for first, second in logs]
    parser.parse_args().out.write_text(json.dumps(found, indent=None) + "\n")


if __name__ == "__main__":
    main()
