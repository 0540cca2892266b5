"""Exactly what is stale: blocks and results that Snakemake would make after one edit of the tiny study."""

import pytest

from tests.workflow.mutations.catalogue import MUTATIONS
from tests.workflow.mutations.dryrun import EVERYTHING, PAPER
from tests.workflow.mutations.study import Mutation, try_mutation
from tests.workflow.mutations.table import as_markdown, totals

QUICK = (
    "sdtp.ablations.B1.change.schedule.layers: [4]",
    "sdtp.saliency.documents: 5",
    "sdtp.evaluation.documents: 7 (one more)",
    "sdtp.evaluation.documents: 5 (one less)",
    "dynatree.prompts.code.count: 4 (one more)",
    "dynatree.decoding.timed: 3 (one more)",
    "dynatree.calibration.timed: 2",
    "panel.experiments: 2",
    "records of an experiment deleted, and its blocks of one measure",
    "dynatree.drafters.hybrid.share: 0.6",
    "an SDTP ablation renamed",
    "keys of config.yaml in another order",
    "a value changed and changed back",
    "pin of torch",
    "pin of seaborn",
    "template floats/bound.tex.j2",
    "texts/chat.jsonl with one document more",
    "a byte changed in the artefact of 'pruner 1/1/1'",
    "a damaged model and a lost experiment, with whole artefacts between them",
    "a damaged artefact and a new title",
    "everything touched",
    ".snakemake deleted",
    "imports of every module in reverse order",
    "logic of lm/cache.py",
)
BY_NAME = {mutation.name: mutation for mutation in MUTATIONS}


def test_names_are_unique():
    assert len(BY_NAME) == len(MUTATIONS)
    assert len(MUTATIONS) >= 60


@pytest.mark.parametrize("mutation", [BY_NAME[name] for name in QUICK], ids=lambda mutation: mutation.name)
def test_exactly_what_is_stale_is_made(finished, tmp_path, mutation: Mutation):
    verdict = try_mutation(finished.path, mutation, tmp_path / "study", PAPER)
    assert verdict.actual - mutation.allowed == verdict.expected - mutation.allowed
    assert not verdict.missed


@pytest.mark.long
def test_every_mutation(finished, tmp_path):
    done = finished.copy(tmp_path / "finished").snakemake(*EVERYTHING)
    assert done.code == 0, done.output
    verdicts = [
        try_mutation(tmp_path / "finished", mutation, tmp_path / "study", EVERYTHING)
        for mutation in MUTATIONS
    ]
    wrong = [verdict for verdict in verdicts if verdict.missed or verdict.needless]
    assert not wrong, as_markdown(wrong) + "\n" + totals(verdicts)
