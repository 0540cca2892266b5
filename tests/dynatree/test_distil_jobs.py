"""The jobs that let a target generate text, and distil a draft from it."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import PreTrainedTokenizerFast

from ablations.core.artefact import open_artefact
from ablations.core.errors import UserError
from ablations.dynatree import distil, distil_teacher, fit_ngram
from ablations.dynatree.decoding import decode_autoregressive
from ablations.dynatree.distil_teacher import Teacher, draw_windows
from ablations.dynatree.distilling.model import DRAFT_FILE
from ablations.dynatree.distilling.questions import chat_frame
from ablations.dynatree.distilling.states import TEACHER_FILE, normalised
from ablations.dynatree.written import written_texts
from ablations.lm.checkpoint import load_tokenizer
from ablations.lm.prepare_model import prepare_model
from ablations.lm.prepare_text import prepare_text
from ablations.specs.dynatree.distil import DistilSpec
from ablations.specs.dynatree.distil_teacher import TeacherSpec
from ablations.specs.dynatree.fit_ngram import NgramSpec
from ablations.specs.lm import Compute, PrepareModelSpec, PrepareTextSpec
from tests.dynatree.noisy_models import VOCABULARY, tiny_model
from tests.dynatree.states import states_of_text
from tests.dynatree.workspace import PRUNED, TREE, decode_spec, decoded, run_job
from tests.lm.llama_like import BOS, SYMBOLS, save_llama_like

TEMPLATE = (
    "{% for m in messages %}<u>{{ m.content }}<e>{% endfor %}{% if add_generation_prompt %}<a>{% endif %}"
)
FLOAT32 = {"dtype": "float32", "threads": 1}
TEACHER = {
    "texts": 10,
    "questions": 0,
    "prompt_tokens": 12,
    "new_tokens": 20,
    "batch": 4,
    "compute": FLOAT32,
}
DISTIL = {"vocabulary": 128, "unroll": 2, "epochs": 2, "heldout": 2, "compute": FLOAT32}
DISTILLED = {"kind": "distilled"}
HYBRID = {"kind": "hybrid", "share": 0.6, "context_weight": 16.0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("distil")


@pytest.fixture(scope="module")
def inputs(folder) -> dict[str, Path]:
    """Manifests of a target, a training text, prompts, the teacher's text, a draft, and n-gram counts."""
    lines = [f"def number_{index}(x):\n    return x + {index} * number(x)\n" for index in range(12)]
    manifests = {}
    source = {"source": "random", "architecture": "llama", "layers": 2, "description": "target"}
    manifests["model"] = run_job(folder, "model", PrepareModelSpec, prepare_model, {"model": source}, {})
    for name, split in (("text", "train"), ("prompts", "heldout")):
        file = folder / f"{name}.jsonl"
        file.write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))
        source = {"source": "local", "path": str(file), "split": split}
        manifests[name] = run_job(folder, name, PrepareTextSpec, prepare_text, {"text": source}, {})
    manifests["ngram"] = run_job(
        folder, "ngram", NgramSpec, fit_ngram.run, {"order": 3, "texts": ["text"]}, manifests
    )
    manifests["teacher"] = run_job(folder, "teacher", TeacherSpec, distil_teacher.run, TEACHER, manifests)
    manifests["distilled"] = run_job(folder, "distilled", DistilSpec, distil.run, DISTIL, manifests)
    return manifests


@pytest.mark.parametrize("drafter", [DISTILLED, HYBRID])
def test_a_distilled_draft_decodes_the_greedy_tokens(drafter, folder, inputs):
    spec = decode_spec(drafter, TREE, PRUNED | {"tau": None})
    samples = decoded(folder, drafter["kind"], spec, inputs).samples
    assert all(sample.matched and sample.draft_forwards for sample in samples)


def test_what_the_target_wrote_can_be_a_text(inputs):
    texts = written_texts(inputs["model"], inputs["teacher"])
    tensors = load_file(inputs["teacher"].parent / TEACHER_FILE)
    assert len(texts) == 10
    tokenizer = load_tokenizer(inputs["model"])
    row = 3
    wrote = tensors["ids"][row, tensors["starts"][row] : tensors["ends"][row]]
    assert texts[row] == tokenizer.decode(wrote, skip_special_tokens=True) != ""


def test_a_draft_says_what_it_was_made_from(inputs):
    folder, manifest = open_artefact(inputs["distilled"])
    facts = manifest.facts
    assert facts["sequences"] == 8
    # Tokens 12 to 31 of each sequence, or less where one ended.
    assert 0 < facts["written"] <= 8 * 20
    assert len(facts["agreement"]) == len(facts["agreement_before_training"]) == 2
    weights = load_file(folder / DRAFT_FILE)
    assert {weight.dtype for weight in weights.values()} == {torch.bfloat16, torch.int32}
    assert weights["head.weight"].shape == (128, 64)


def test_training_goes_on_from_a_draft(folder, inputs):
    first, manifest = open_artefact(inputs["distilled"])
    spec = DISTIL | {"start": str(first / DRAFT_FILE), "learning_rate": 1e-9}
    again, facts = open_artefact(run_job(folder, "continued", DistilSpec, distil.run, spec, inputs))
    # The same sequences are held out; weights were rounded to bfloat16.
    assert facts.facts["agreement_before_training"] == pytest.approx(manifest.facts["agreement"], abs=0.05)
    old, new = (load_file(artefact / DRAFT_FILE) for artefact in (first, again))
    assert torch.equal(new["tokens"], old["tokens"])
    torch.testing.assert_close(new["join.weight"], old["join.weight"], atol=1e-3, rtol=1e-2)


def test_without_epochs_the_draft_is_taken_as_it_is_and_nothing_is_read(folder, inputs):
    first, _ = open_artefact(inputs["distilled"])
    spec = DISTIL | {"start": str(first / DRAFT_FILE), "epochs": 0}
    taken, _ = open_artefact(
        run_job(folder, "taken", DistilSpec, distil.run, spec, {"model": inputs["model"]})
    )
    old, new = (load_file(artefact / DRAFT_FILE) for artefact in (first, taken))
    assert old.keys() == new.keys()
    assert all(torch.equal(old[name], new[name]) for name in old)


def test_the_same_spec_writes_and_trains_the_same(folder, inputs):
    again = dict(inputs)
    again["teacher"] = run_job(folder, "teacher-again", TeacherSpec, distil_teacher.run, TEACHER, inputs)
    again["distilled"] = run_job(folder, "distilled-again", DistilSpec, distil.run, DISTIL, again)
    for name in ("teacher", "distilled"):
        first, second = (open_artefact(manifests[name])[1].files for manifests in (inputs, again))
        assert first == second


@torch.inference_mode()
def test_the_teacher_continues_greedily_and_keeps_its_states():
    target = tiny_model("gpt_neox")
    prompts = torch.randint(0, VOCABULARY, (5, 6), generator=torch.Generator().manual_seed(2))
    expected = [
        decode_autoregressive(target, target.new_cache(40), prompt, 14).tokens for prompt in prompts.tolist()
    ]
    # A token that ends some of the rows early.
    end = expected[0][4]
    target.model.generation_config.eos_token_id = end
    spec = TeacherSpec(texts=5, questions=0, prompt_tokens=6, new_tokens=14, compute=Compute())
    tensors = Teacher(target, spec).continue_texts(prompts)
    assert tensors["ids"].dtype == torch.int32
    for row, tokens in enumerate(expected):
        length = tokens.index(end) + 1 if end in tokens else 14
        assert (tensors["starts"][row], tensors["ends"][row]) == (6, 6 + length)
        assert tensors["ids"][row].tolist() == prompts[row].tolist() + tokens
        states = normalised(target.norm, states_of_text(target, prompts[row].tolist(), tokens))
        torch.testing.assert_close(tensors["states"][row], states.bfloat16(), atol=0.02, rtol=0.02)
    assert tensors["ends"].min() < 20


def chat_tokenizer(inputs) -> PreTrainedTokenizerFast:
    tokenizer = load_tokenizer(inputs["model"])
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def test_what_a_target_with_bos_writes_begins_with_it(folder, inputs):
    saved = save_llama_like(folder / "saved", "{{ bos_token }}" + TEMPLATE)
    source = {"source": "pretrained", "name": str(saved), "layers": 2}
    model = run_job(folder, "with-bos", PrepareModelSpec, prepare_model, {"model": source}, {})
    spec = TEACHER | {"questions": 2, "new_tokens": 60}
    teacher = run_job(folder, "bos-teacher", TeacherSpec, distil_teacher.run, spec, inputs | {"model": model})
    tensors = load_file(teacher.parent / TEACHER_FILE)
    assert tensors["ids"][:, 0].tolist() == [SYMBOLS.index(BOS)] * 12
    assert tensors["starts"][:10].tolist() == [TEACHER["prompt_tokens"]] * 10
    tokenizer = load_tokenizer(model)
    opening, closing = chat_frame(tokenizer)
    assert tokenizer.convert_ids_to_tokens(opening) == [BOS, *"<u>"]
    assert tokenizer.convert_ids_to_tokens(closing) == list("<e><a>")


def test_the_frame_of_a_question_is_the_chat_templates(inputs):
    tokenizer = chat_tokenizer(inputs)
    opening, closing = chat_frame(tokenizer)
    assert (tokenizer.decode(opening), tokenizer.decode(closing)) == ("<u>", "<e><a>")


@torch.inference_mode()
def test_questions_are_drawn_and_answers_are_greedy():
    target = tiny_model("llama")
    opening, closing = torch.tensor([7, 8]), torch.tensor([90, 91, 92])
    spec = TeacherSpec(texts=0, questions=6, prompt_tokens=20, new_tokens=60, seed=3, compute=Compute())
    tensors = Teacher(target, spec).answer_questions(opening, closing, 6)
    questions = set()
    for ids, start in zip(tensors["ids"].tolist(), tensors["starts"].tolist(), strict=True):
        assert ids[:2] == [7, 8]
        assert ids[start - 3 : start] == [90, 91, 92]
        question = ids[2 : start - 3]
        assert 4 <= len(question) <= 48
        assert 90 not in question
        questions.add(tuple(question))
        answer = decode_autoregressive(target, target.new_cache(80), ids[:start], 80 - start).tokens
        assert ids[start:] == answer
    assert len(questions) == 6


def test_windows_are_drawn_from_every_long_document():
    documents = [torch.arange(start, start + size) for start, size in ((0, 9), (100, 5), (200, 3))]
    windows = draw_windows(documents, 7, 5, seed=1)
    assert windows.shape == (7, 5)
    assert (windows.diff(dim=1) == 1).all()
    firsts = windows[:, 0].tolist()
    assert {first // 100 for first in firsts} == {0, 1}
    assert len({first for first in firsts if first < 100}) > 1


def test_a_draft_to_start_from_has_the_vocabulary(folder, inputs):
    draft = inputs["distilled"].parent / DRAFT_FILE
    spec = DISTIL | {"start": str(draft), "vocabulary": 64}
    with pytest.raises(UserError, match=r"distil\.vocabulary: 64 tokens, but .*draft\.safetensors knows 128"):
        run_job(folder, "bad", DistilSpec, distil.run, spec, inputs)


@pytest.mark.parametrize(
    ("job", "changes", "message"),
    [
        ("teacher", {"questions": 4}, r"teacher\.questions: the target has no chat template"),
        ("teacher", {"prompt_tokens": 500}, r"teacher\.prompt_tokens: no training document has 500 tokens"),
        ("teacher", {"texts": 0}, r"spec\.texts: the target has nothing to write"),
        (
            "teacher",
            {"new_tokens": 9999},
            r"teacher\.new_tokens: \d+ tokens exceed the model's \d+ positions",
        ),
        ("distil", {"epochs": 0}, r"spec\.epochs: 0 epochs train nothing"),
        ("distil", {"heldout": 10}, r"10 sequences leave none to train on beside distil\.heldout"),
        ("distil", {"vocabulary": 10**6}, r"distil\.vocabulary: 1000000 tokens, but the target has \d+"),
        ("distil", {"compute": {"dtype": "float16"}}, r"spec\.compute\.dtype: float16"),
    ],
)
def test_bad_input_is_one_line(job, changes, message, folder, inputs):
    kinds = {
        "teacher": (TeacherSpec, distil_teacher.run, TEACHER),
        "distil": (DistilSpec, distil.run, DISTIL),
    }
    spec_type, work, spec = kinds[job]
    with pytest.raises(UserError, match=message):
        run_job(folder, "bad", spec_type, work, spec | changes, inputs)


def test_questions_need_room(inputs):
    tensors = load_file(inputs["teacher"].parent / TEACHER_FILE)
    assert tensors["ids"].shape == (10, 32)
    target = tiny_model("llama")
    spec = TeacherSpec(texts=0, questions=2, prompt_tokens=10, new_tokens=20, compute=Compute())
    with pytest.raises(UserError, match=r"teacher\.new_tokens: .* leave no room for an answer"):
        Teacher(target, spec).answer_questions(torch.tensor([1]), torch.tensor([90]), 2)
