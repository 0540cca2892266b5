import pytest
import torch
from torch.nn import functional as F

from ablations.core.artefact import open_artefact
from ablations.core.errors import UserError
from ablations.lm.checkpoint import load_model, load_tokenizer
from ablations.lm.corpus import read_corpus, windows
from ablations.sdtp.evaluation.heldout import read_reference
from ablations.specs.lm import Compute


@pytest.fixture(scope="module")
def reference_windows(workspace):
    tokenizer = load_tokenizer(workspace.folder / "model" / "manifest.json")
    documents = read_corpus(workspace.folder / "text" / "manifest.json")
    return windows(documents, tokenizer, "heldout", 4, 56)


def test_reference_is_what_transformers_computes(workspace, reference_windows):
    reference = read_reference(workspace.folder / "reference" / "manifest.json", reference_windows)
    lm = load_model(workspace.folder / "model" / "manifest.json", Compute(), torch.device("cpu"))
    assert len(reference.rows) == len(reference.states) == 4
    for window, row, states in zip(reference_windows, reference.rows, reference.states, strict=True):
        logits = lm.model(window.ids[None], use_cache=False).logits[0, 47:-1]
        assert states.shape == (8, 64)
        torch.testing.assert_close(lm.head(states[None])[0], logits, atol=1e-4, rtol=1e-4)
        assert row.document == window.document
        assert row.nll == pytest.approx(F.cross_entropy(logits, window.ids[48:]).item(), rel=1e-5)
    assert [probe.depth for probe in reference.probes] == [0.2, 0.8]
    assert all(probe.nll > 0 for probe in reference.probes)


def test_no_passkeys_where_none_are_asked_for(workspace, reference_windows):
    path = workspace.run("reference", "reference_plain", retrieval=None)
    assert read_reference(path, reference_windows).probes == ()


def test_reference_repeats_bit_for_bit(workspace, reference_windows):
    again = read_reference(workspace.run("reference", "reference_again"), reference_windows)
    first = read_reference(workspace.folder / "reference" / "manifest.json", reference_windows)
    assert again.rows == first.rows
    assert again.probes == first.probes
    assert all(torch.equal(a, b) for a, b in zip(again.states, first.states, strict=True))


def test_reference_of_other_windows_is_refused(workspace, reference_windows):
    with pytest.raises(UserError, match="made for other windows"):
        read_reference(workspace.folder / "reference" / "manifest.json", reference_windows[:3])


def test_passkeys_longer_than_the_model_are_refused(workspace):
    positions = load_model(
        workspace.folder / "model" / "manifest.json", Compute(), torch.device("cpu")
    ).config.max_position_embeddings
    lines = "".join(f'{{"text": "{letter * (positions + 50)}"}}\n' for letter in "abcdefghij")
    (workspace.folder / "long.jsonl").write_text(lines)
    source = {"source": "local", "path": str(workspace.folder / "long.jsonl"), "split": "heldout"}
    workspace.run("text", "long_text", text=source)
    with pytest.raises(UserError, match=r"retrieval\.tokens: \d+ tokens exceed the model"):
        workspace.run(
            "reference",
            "never",
            {"text": "long_text"},
            retrieval={"tokens": positions, "depths": [0.5], "keys": 1},
        )
    assert not (workspace.folder / "never").exists()
    assert open_artefact(workspace.folder / "reference" / "manifest.json")[1].facts["passkeys"] == 2
