"""The adapter for lm-evaluation-harness, against the harness's own class for `transformers` models."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import datasets
import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from ablations.core.errors import UserError
from ablations.core.job import Run, read_job
from ablations.core.record import read_contract
from ablations.lm.checkpoint import load_tokenizer
from ablations.lm.layered import LayeredLM
from ablations.lm.models.random import make_random_model
from ablations.lm.packing import pack_linears
from ablations.sdtp.evaluation.arm import PrunedArm
from ablations.sdtp.harness import run, tasks
from ablations.sdtp.harness.__main__ import read_configuration
from ablations.sdtp.harness.adapter import PrunedLM, unpruned_arm
from ablations.sdtp.harness.run import run_tasks
from ablations.sdtp.harness.scores import Downstream
from ablations.sdtp.harness.tasks import TaskRequest
from ablations.sdtp.pruned.continuation import continuation_states
from ablations.sdtp.pruned.prefill import prefill
from ablations.sdtp.pruned.pruning import Pruning
from ablations.sdtp.scores import importance
from ablations.sdtp.scores.importance import Prompt
from ablations.specs.lm import RandomModel
from ablations.specs.sdtp.counts import Preserve
from ablations.specs.sdtp.evaluate import PromptSaliency, TextSeries
from tests.sdtp.naive import naive_greedy
from tests.sdtp.workspace import ARM, WINDOWS

ROOT = Path(__file__).parents[2]
TASKS = ROOT / "tests" / "data" / "downstream"
TEXT = "The ferry leaves at nine in the morning and comes back at five."
LAYERS = (1, 3)


def instances(kind, *arguments):
    return [Instance(kind, {}, pair, index) for index, pair in enumerate(arguments)]


@pytest.fixture(params=["llama", "qwen2", "gpt_neox"])
def checkpoint(request):
    source = RandomModel(source="random", architecture=request.param, layers=5)
    model, tokenizer = make_random_model(source)
    for weight in model.parameters():
        if weight.ndim == 2:
            # As initialised, a random model is near linear: attention and positions hardly matter.
            weight.data.mul_(8.0)
    # Short, so that truncation and rolling windows are seen at work.
    model.config.max_position_embeddings = 96
    return model.float().eval().requires_grad_(False), tokenizer


@pytest.fixture
def library(checkpoint):
    return HFLM(pretrained=checkpoint[0], tokenizer=checkpoint[1], batch_size=1)


def arm_of(model, ratio, preserve=None):
    pruning = Pruning(LAYERS, (ratio, ratio), preserve or Preserve(head=2, tail=4))
    return PrunedArm(LayeredLM(model), pruning, importance.random(0))


@pytest.fixture
def whole(checkpoint):
    """Keep ratio one: all stages run and drop nothing."""
    model, tokenizer = checkpoint
    return PrunedLM(arm_of(model, 1.0), tokenizer)


@pytest.fixture
def pruned(checkpoint):
    model, tokenizer = checkpoint
    return PrunedLM(arm_of(model, 0.5), tokenizer)


PAIRS = instances(
    "loglikelihood",
    (TEXT, " When?"),
    (TEXT, " At nine."),
    ("", "No context at all."),
    (TEXT + " ", "The space belongs to the continuation."),
    (TEXT * 3, "The context is cut from the left."),
    (TEXT, "x"),
    (TEXT, " When?"),
)


def test_ratio_one_has_the_library_s_loglikelihoods(whole, library):
    results = whole.loglikelihood(PAIRS)
    expected = library.loglikelihood(PAIRS)
    assert [value for value, _ in results] == pytest.approx([value for value, _ in expected], abs=1e-4)
    assert [greedy for _, greedy in results] == [greedy for _, greedy in expected]


def test_a_greedy_continuation_is_known_as_one(whole, library):
    (text,) = library.generate_until(instances("generate_until", (TEXT, {"until": [], "max_gen_toks": 1})))
    ids = library.tok_encode(TEXT)
    token = library.model(torch.tensor([ids])).logits[0, -1].argmax().item()
    request = (("", ""), ids, [token])
    assert whole._loglikelihood_tokens([request])[0][1] is True
    assert whole._loglikelihood_tokens([(("", ""), ids, [(token + 1) % 258])])[0][1] is False
    assert len(text) <= 1


def test_rolling_loglikelihood_is_the_library_s(whole, pruned, library):
    texts = instances("loglikelihood_rolling", (TEXT,), (TEXT * 4,))
    expected = library.loglikelihood_rolling(texts)
    assert whole.loglikelihood_rolling(texts) == pytest.approx(expected, abs=1e-3)
    short, long = pruned.loglikelihood_rolling(texts)
    # A single window has a context of one token; the last of several windows has a longer one.
    assert short == pytest.approx(expected[0], abs=1e-3)
    assert abs(long - expected[1]) > 0.1


@pytest.mark.parametrize("until", [[], ["e"], [" ", "zz"]])
def test_ratio_one_generates_the_library_s_text(whole, library, until):
    requests = instances(
        "generate_until",
        (TEXT, {"until": until, "max_gen_toks": 20}),
        (TEXT * 3, {"until": until, "max_gen_toks": 20, "do_sample": False, "temperature": 1.0}),
    )
    assert whole.generate_until(requests) == library.generate_until(requests)


def test_the_context_is_pruned_and_the_continuation_is_not(pruned, library):
    (loglikelihood, _), *_ = pruned.loglikelihood(PAIRS[:1])
    (plain, _), *_ = library.loglikelihood(PAIRS[:1])
    assert abs(loglikelihood - plain) > 1e-2
    lm, arm = pruned._arm.lm, pruned._arm
    context, continuation = (torch.tensor(library.tok_encode(text)) for text in PAIRS[0].args)
    cache = lm.new_cache(96)
    prefilled = prefill(lm, context, cache, arm.pruning, arm.importance.scorer(Prompt(context, 0)))
    assert cache.lengths == [63, 32, 32, 16, 16]
    states = continuation_states(lm, prefilled, cache, continuation)
    logits = lm.head(states[None])[0].log_softmax(-1)
    expected = logits[torch.arange(len(continuation)), continuation].sum().item()
    assert loglikelihood == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("positions", ["original", "packed"])
def test_a_generation_goes_on_in_every_layer_after_its_own_prompt(checkpoint, positions):
    model, tokenizer = checkpoint
    lm = LayeredLM(model)
    pruning = Pruning(LAYERS, (0.5, 0.5), Preserve(head=2, tail=4), positions)
    harness = PrunedLM(PrunedArm(lm, pruning, importance.hidden_norm()), tokenizer)
    (text,) = harness.generate_until(instances("generate_until", (TEXT, {"until": [], "max_gen_toks": 8})))
    prompt = torch.tensor(harness.tok_encode(TEXT))
    expected, gap = naive_greedy(
        lm, lambda _, states: states.norm(dim=-1), prompt, 8, list(LAYERS), (0.5, 0.5), 2, 4, positions
    )
    assert gap > 1e-3, "a tie in this test; change its text"
    assert text == tokenizer.decode(expected, skip_special_tokens=True)


def test_choices_of_one_question_share_its_prefill(pruned, monkeypatch):
    lengths = []
    prefill_of = PrunedArm.prefill
    monkeypatch.setattr(
        PrunedArm,
        "prefill",
        lambda self, prompt, cache: lengths.append(len(prompt.ids)) or prefill_of(self, prompt, cache),
    )
    alone = pruned.loglikelihood(PAIRS[:1])
    lengths.clear()
    pruned._prompt_numbers = iter(range(9))
    together = pruned.loglikelihood(PAIRS[:2])
    assert lengths == [63]
    assert together[0][0] == pytest.approx(alone[0][0], abs=1e-5)


@pytest.mark.parametrize("preserve", [Preserve(head=40, tail=40), Preserve(head=0.5, tail=0.5)])
def test_contexts_that_are_protected_whole_stay_whole(checkpoint, library, preserve):
    model, tokenizer = checkpoint
    pruned = PrunedLM(arm_of(model, 0.5, preserve), tokenizer)
    pruned._arm = replace(pruned._arm, importance=None)
    results = pruned.loglikelihood(PAIRS[:2])
    expected = library.loglikelihood(PAIRS[:2])
    assert [value for value, _ in results] == pytest.approx([value for value, _ in expected], abs=1e-4)


def test_packed_weights_change_nothing(checkpoint, library):
    model, tokenizer = checkpoint
    expected = library.loglikelihood(PAIRS)
    lm = LayeredLM(model)
    plain = PrunedLM(unpruned_arm(lm), tokenizer)
    assert pack_linears(lm) == "onednn" or not torch.backends.mkldnn.is_available()
    results = plain.loglikelihood(PAIRS)
    assert [value for value, _ in results] == pytest.approx([value for value, _ in expected], abs=1e-4)


@pytest.mark.parametrize(
    "kwargs",
    [{"do_sample": True, "temperature": 0.8}, {"num_beams": 4}, {"repetition_penalty": 1.2}],
)
def test_only_greedy_decoding(whole, kwargs):
    request = instances("generate_until", (TEXT, {"until": ["."], "max_gen_toks": 4, **kwargs}))
    with pytest.raises(UserError, match=r"generation_kwargs\.\w+: .* is not greedy decoding"):
        whole.generate_until(request)


def test_a_generation_of_nan_is_an_error(whole, pruned):
    request = instances("generate_until", (TEXT, {"until": ["."], "max_gen_toks": 4}))
    for model in (whole, pruned):
        model._arm.lm.lm_head.weight.data[3] = torch.nan
        with pytest.raises(UserError, match="NaN or infinity in the logits of a generated token"):
            model.generate_until(request)
        with pytest.raises(UserError, match="NaN or infinity in a log-likelihood"):
            model.loglikelihood(instances("loglikelihood", (TEXT, " again")))


def job(workspace, **change):
    return read_job(workspace.spec_file("quality", change, {}), TextSeries)


@pytest.fixture
def local(monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    # The thousands of definitions that come with the harness take it long to read.
    monkeypatch.setattr(tasks, "TaskManager", partial(TaskManager, include_defaults=False))


def test_local_tasks_end_in_scores(workspace, local, tmp_path):
    out = tmp_path / "scores.json"
    request = TaskRequest(["reading_choice", "reading_answer"], include_path=TASKS, limit=3)
    run_tasks(Run(job(workspace), out, None), request)
    result = read_contract(out, Downstream)
    rows = {(score.task, score.metric): score for score in result.scores}
    assert set(rows) == {
        ("reading_choice", "acc"),
        ("reading_choice", "acc_norm"),
        ("reading_answer", "exact_match"),
    }
    for score in result.scores:
        assert score.items == 3
        assert score.version == "1.0"
        # Of three items: thirds, and the standard error of such a mean.
        assert (3 * score.arm) % 1 == pytest.approx(0.0)
        assert score.arm_stderr == pytest.approx((score.arm * (1 - score.arm) / 2) ** 0.5)
    assert result.lm_eval == "0.4.13"


def test_ratio_one_scores_as_the_unpruned_model(workspace, local, tmp_path):
    out = tmp_path / "scores.json"
    run_tasks(
        Run(job(workspace, keep_ratios=[1.0, 1.0]), out, None),
        TaskRequest(["reading_choice"], include_path=TASKS, fewshot=1),
    )
    for score in read_contract(out, Downstream).scores:
        assert (score.arm, score.arm_stderr) == (score.reference, score.reference_stderr)
        assert score.items == 8


@pytest.mark.parametrize(
    ("change", "request_", "message"),
    [
        ({}, TaskRequest(["nope"]), "--tasks: lm-eval knows no task 'nope'"),
        ({}, TaskRequest(["reading_choice"], include_path=Path("nowhere")), "--include-path: nowhere"),
        (
            {},
            TaskRequest(["reading_choice"], include_path=TASKS, limit=0),
            "--limit: 0 items; ask for at least 1",
        ),
        ({}, TaskRequest(["reading_choice"], include_path=TASKS, limit=-2), "--limit: -2 items"),
        (
            {},
            TaskRequest(["reading_choice"], include_path=TASKS, fewshot=-1),
            "--fewshot: -1 worked examples",
        ),
        # Eight items, one of which is the scored item.
        (
            {},
            TaskRequest(["reading_choice"], include_path=TASKS, fewshot=8),
            "--fewshot: 8 worked examples are more than 'reading_choice' has",
        ),
        (
            {},
            TaskRequest(["reading_answer"], include_path=TASKS, fewshot=1),
            "--fewshot: worked examples of 'reading_answer' are drawn from the items that are scored",
        ),
        (
            {},
            TaskRequest(["reading_choice"], include_path=TASKS, chat_template=True),
            "--chat-template: the model's tokenizer has none",
        ),
        ({"positions": "stale"}, TaskRequest(["reading_choice"], include_path=TASKS), "positions: 'stale'"),
        (
            {"importance": "oracle", "saliency": {"measure": "norm", "loss_tokens": None}},
            TaskRequest(["reading_choice"], include_path=TASKS),
            "importance: 'oracle' needs the text that follows",
        ),
    ],
)
def test_bad_requests_are_one_line(workspace, local, tmp_path, change, request_, message):
    with pytest.raises(UserError, match=message) as caught:
        run_tasks(Run(job(workspace, **change), tmp_path / "no.json", None), request_)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "no.json").exists()


@pytest.mark.parametrize(
    ("task", "old", "new", "message"),
    [
        ("choice", "test_split: train", "test_split: nope", r"cannot be scored \(KeyError: 'nope'\)"),
        ("choice", "fewshot_split: train", "fewshot_split: nope", r"cannot be scored \(KeyError: 'nope'\)"),
        ("choice", "{{passage}}", "{{passaage}}", "UndefinedError: 'passaage' is undefined"),
        ("choice", '"{{choices}}"', '"{{chooices}}"', "'chooices' is undefined"),
        ("choice", '"{{answer}}"', '"{{ansswer}}"', "'ansswer' is undefined"),
        # A misspelt column without braces: the harness takes the text itself for the answer.
        ("choice", '"{{answer}}"', "ansswer", "the answer of no item of 'task' is one of its choices"),
        ("choice", "{{passage}}", "{{passage", "TemplateSyntaxError"),
        ("choice", "{{passage}}", "{{passage|nothing}}", "No filter named 'nothing'"),
        ("choice", "{{passage}}", "{{1 // 0}}", "ZeroDivisionError"),
        (
            "choice",
            "metric: acc\n",
            "metric: accc\n",
            "'task' has a metric 'accc' that it gives no score for",
        ),
        ("choice", "output_type: multiple_choice", "output_type: multiple", "Got invalid output_type"),
        ("choice", "metadata:", "unheard_of: 1\nmetadata:", "unexpected keyword argument 'unheard_of'"),
        ("choice", "metadata:", "process_docs: !function gone.f\nmetadata:", "Cannot import module 'gone'"),
        ("choice", "metadata:", "num_fewshot: 0\nmetadata:", "--fewshot: 'task' takes no worked examples"),
        ("choice", "metadata:", "[metadata:", "knows no task 'task'.*Skip .*task.yaml .*line"),
        ("answer", "do_sample: false", "do_sample: true", r"generation_kwargs\.do_sample: True"),
        ("answer", "max_gen_toks: 12", "max_gen_toks: 5000", "less than model's maximum sequence length"),
        ("answer", 'until: ["\\n", "."]', "until: 5", "cannot be scored"),
        ("answer", "choices[answer]", "choices[aanswer]", "no element Undefined"),
    ],
)
def test_a_wrong_definition_is_one_line_before_the_model_runs(
    workspace, local, tmp_path, monkeypatch, task, old, new, message
):
    text = (TASKS / f"reading_{task}.yaml").read_text()
    assert text.count(old) >= 1
    text = text.replace(f"task: reading_{task}", "task: task").replace(old, new)
    (tmp_path / "task.yaml").write_text(text)
    monkeypatch.setattr(PrunedArm, "prefill", lambda *_: pytest.fail("the model ran"))
    fewshot = 1 if "num_fewshot" in new else None
    request = TaskRequest(["task"], include_path=tmp_path, fewshot=fewshot)
    with pytest.raises(UserError, match=message) as caught:
        run_tasks(Run(job(workspace), tmp_path / "no.json", None), request)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "no.json").exists()


def test_what_the_harness_warns_of_is_said_once(workspace, local, tmp_path, capfd):
    text = (TASKS / "reading_choice.yaml").read_text().replace("task: reading_choice", "task: task")
    (tmp_path / "task.yaml").write_text(text.replace("{{answer}}", "{{answer if answer == 0 else 9}}"))
    items = [json.loads(line) for line in (TASKS / "reading.jsonl").read_text().splitlines()]
    wrong = sum(item["answer"] != 0 for item in items)
    run_tasks(Run(job(workspace), tmp_path / "o.json", None), TaskRequest(["task"], include_path=tmp_path))
    notes = [line for line in capfd.readouterr().err.splitlines() if "note:" in line]
    assert len(notes) == 1
    assert f"note: lm-eval on 'task' ({wrong} times): Label index was not in within range" in notes[0]


def test_a_broken_chat_template_is_one_line(workspace, local, tmp_path, monkeypatch):
    broken = load_tokenizer(workspace.folder / "model" / "manifest.json")
    broken.chat_template = "{{ raise_exception('only two roles') }}"
    monkeypatch.setattr(run, "load_tokenizer", lambda _: broken)
    request = TaskRequest(["reading_choice"], include_path=TASKS, chat_template=True)
    with pytest.raises(
        UserError, match=r"'reading_choice' cannot be scored \(TemplateError: only two roles\)"
    ):
        run_tasks(Run(job(workspace), tmp_path / "no.json", None), request)


@pytest.mark.parametrize(
    ("out", "why"), [("folder", "Is a directory"), ("file/scores.json", "(Not a directory|File exists)")]
)
def test_where_nothing_can_be_written_is_known_before_anything_runs(workspace, tmp_path, out, why):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    spec = workspace.spec_file("quality", {}, {})
    command = [sys.executable, "-m", "ablations.sdtp.harness", "--spec", str(spec), "--tasks", "x"]
    done = subprocess.run([*command, "--out", out], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 1
    message = f"error: --out: {out} cannot be written \\({why}\\); choose another file\n"
    assert re.fullmatch(message, done.stderr)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_missing_data_is_one_line(workspace, local, tmp_path):
    task = (TASKS / "reading_choice.yaml").read_text().replace("reading.jsonl", "gone.jsonl")
    (tmp_path / "gone.yaml").write_text(task.replace("task: reading_choice", "task: gone"))
    with pytest.raises(UserError, match=r"--tasks: data of 'gone' cannot be had"):
        run_tasks(
            Run(job(workspace), tmp_path / "no.json", None), TaskRequest(["gone"], include_path=tmp_path)
        )


def test_command_line_without_the_extra(workspace, tmp_path):
    spec = workspace.spec_file("quality", {}, {})
    program = (
        "import sys; sys.modules['lm_eval'] = None;from ablations.sdtp.harness.__main__ import main; main()"
    )
    command = [sys.executable, "-c", program, "--spec", str(spec), "--tasks", "x", "--out", "no.json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == (
        "error: lm-eval is not installed; pip install -c constraints.txt -e '.[harness]'\n"
    )


def test_the_spec_of_a_record_stands_for_the_series_of_its_text(workspace):
    series = workspace.spec_file("quality", {}, {}, digest="text-series")
    arm = {key: value for key, value in ARM.items() if key != "prompt_tokens"}
    spec = arm | {"windows": WINDOWS | {"documents": 3}, "retrieval": None, "timing": None}
    content = {"digest": "record", "module": "m", "spec": spec, "spec_digest": "s", "code_digest": "c"}
    record = series.with_name("record.json")
    record.write_text(json.dumps(content | {"inputs": {"text": "results/block/text-series"}}))
    found, path = read_configuration(record)
    assert (found, path) == read_configuration(series)
    assert path == series
    with pytest.raises(UserError, match=r"model\.json: not a spec of this job"):
        read_configuration(workspace.spec_file("model", {}, {}))


def test_local_tasks_have_an_answer_among_their_choices():
    for line in (TASKS / "reading.jsonl").read_text().splitlines():
        item = json.loads(line)
        assert 0 <= item["answer"] < len(item["choices"])


def test_gradient_saliency_prunes_the_context_of_a_generation(checkpoint):
    model, tokenizer = checkpoint
    lm = LayeredLM(model)
    pruning = Pruning(LAYERS, (0.5, 0.5), Preserve(head=2, tail=4))
    arm = PrunedArm(
        lm, pruning, importance.saliency(lm, LAYERS, PromptSaliency(measure="norm", loss_tokens=8))
    )
    requests = instances("generate_until", (TEXT, {"until": [], "max_gen_toks": 4}))
    assert len(PrunedLM(arm, tokenizer).generate_until(requests)) == 1
