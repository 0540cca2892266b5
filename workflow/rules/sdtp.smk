# SDTP: saliency -> pruner -> evaluation, each against the shared unpruned reference; sweeps over lengths.


rule saliency:
    input:
        unpack(job_files),
    output:
        stages.SALIENCY.result,
    log:
        "logs/saliency/{digest}.log",
    benchmark:
        "benchmarks/saliency/{digest}.tsv"
    wildcard_constraints:
        digest=due(stages.SALIENCY),
    conda:
        "../../envs/measure.yaml"
    threads: job_threads
    resources:
        **model_resources,
    message:
        "Extracting saliency {wildcards.digest}"
    shell:
        "python -m ablations.sdtp.saliency --spec {input.spec} --out {output} > {log} 2>&1"


rule train_pruner:
    input:
        unpack(job_files),
    output:
        stages.TRAIN_PRUNER.result,
    log:
        "logs/train_pruner/{digest}.log",
    benchmark:
        "benchmarks/train_pruner/{digest}.tsv"
    wildcard_constraints:
        digest=due(stages.TRAIN_PRUNER),
    conda:
        "../../envs/measure.yaml"
    threads: job_threads
    resources:
        **model_resources,
    message:
        "Training pruner {wildcards.digest}"
    shell:
        "python -m ablations.sdtp.train --spec {input.spec} --out {output} > {log} 2>&1"


rule reference:
    input:
        unpack(job_files),
    output:
        stages.REFERENCE.result,
    log:
        "logs/reference/{digest}.log",
    benchmark:
        "benchmarks/reference/{digest}.tsv"
    wildcard_constraints:
        digest=due(stages.REFERENCE),
    conda:
        "../../envs/measure.yaml"
    threads: job_threads
    resources:
        **model_resources,
    message:
        "Evaluating the unpruned model {wildcards.digest}"
    shell:
        "python -m ablations.sdtp.reference --spec {input.spec} --out {output} > {log} 2>&1"


rule calibrate:
    input:
        unpack(job_files),
    output:
        stages.CALIBRATE.result,
    log:
        "logs/calibrate/{digest}.log",
    benchmark:
        "benchmarks/calibrate/{digest}.tsv"
    wildcard_constraints:
        digest=due(stages.CALIBRATE),
    conda:
        "../../envs/measure.yaml"
    threads: job_threads
    resources:
        **model_resources,
    message:
        "Calibrating selection rule {wildcards.digest}"
    shell:
        "python -m ablations.sdtp.calibrate --spec {input.spec} --out {output} > {log} 2>&1"


# An evaluation is one job, or several that share its prompts and one that joins their records. The record has
# the same name either way: how many jobs shared the prompts is no part of a result.
shards = plan.config.sdtp.evaluation.shards
evaluated = due(stages.EVALUATE_SDTP)


scattergather:
    evaluation=shards,


rule evaluate_sdtp:
    input:
        unpack(job_files),
    output:
        record(stages.EVALUATE_SDTP.result, "SDTP"),
    log:
        "logs/evaluate_sdtp/{digest}.log",
    benchmark:
        "benchmarks/evaluate_sdtp/{digest}.tsv"
    wildcard_constraints:
        digest=evaluated if shards == 1 else plan.NO_DIGEST,
    conda:
        "../../envs/measure.yaml"
    threads: job_threads
    resources:
        **timer_resources,
    params:
        label=job_label,
        share="",
    message:
        "Evaluating {params.label} (SDTP)"
    shell:
        "python -m ablations.sdtp.evaluate --spec {input.spec} --out {output}"
        " --label {params.label:q} {params.share} > {log} 2>&1"


use rule evaluate_sdtp as evaluate_shard with:
    output:
        stages.SHARD,
    log:
        "logs/evaluate_sdtp/{digest}.{scatteritem}.log",
    benchmark:
        "benchmarks/evaluate_sdtp/{digest}.{scatteritem}.tsv"
    wildcard_constraints:
        digest=due_shares(evaluated) if shards > 1 else plan.NO_DIGEST,
    params:
        label=job_label,
        share=lambda wildcards: f"--shard {wildcards.scatteritem}",
    message:
        "Evaluating {params.label} (SDTP), share {wildcards.scatteritem}"


rule join_shards:
    input:
        spec=ancient(stages.SPEC),
        shards=gather.evaluation(stages.SHARDS),
    output:
        record(stages.EVALUATE_SDTP.result, "SDTP"),
    log:
        "logs/join_shards/{digest}.log",
    benchmark:
        "benchmarks/join_shards/{digest}.tsv"
    wildcard_constraints:
        digest=evaluated if shards > 1 else plan.NO_DIGEST,
    conda:
        "../../envs/measure.yaml"
    threads: 1
    resources:
        **cpu_resources,
    params:
        label=job_label,
    message:
        "Joining the shares of {params.label} (SDTP)"
    shell:
        "python -m ablations.sdtp.evaluate --spec {input.spec} --out {output}"
        " --label {params.label:q} --join {input.shards} > {log} 2>&1"


# A single process that starts its ranks itself; or, where the resource `mpi` names a launcher (`srun` in
# profiles/slurm), a task of the launcher for each rank.
rule evaluate_pipeline:
    input:
        unpack(job_files),
    output:
        record(stages.EVALUATE_PIPELINE.result, "SDTP"),
    log:
        "logs/evaluate_pipeline/{digest}.log",
    benchmark:
        "benchmarks/evaluate_pipeline/{digest}.tsv"
    wildcard_constraints:
        digest=due(stages.EVALUATE_PIPELINE),
    conda:
        "../../envs/measure.yaml"
    threads: job_threads
    resources:
        **timer_resources,
        tasks=job_ranks,
        tasks_per_gpu=1,
        cpus_per_task=rank_threads,
    params:
        label=job_label,
        launcher=job_launcher,
    message:
        "Evaluating {params.label} (SDTP over several ranks)"
    shell:
        "{params.launcher} python -m ablations.sdtp.evaluate_pipeline --spec {input.spec} --out {output}"
        " --label {params.label:q} > {log} 2>&1"


rule sweep:
    input:
        unpack(job_files),
    output:
        stages.SWEEP.result,
    log:
        "logs/sweep/{digest}.log",
    benchmark:
        "benchmarks/sweep/{digest}.tsv"
    wildcard_constraints:
        digest=due(stages.SWEEP),
    conda:
        "../../envs/measure.yaml"
    threads: job_threads
    resources:
        **timer_resources,
    message:
        "Timing prefill at one prompt length {wildcards.digest}"
    shell:
        "python -m ablations.sdtp.sweep --spec {input.spec} --out {output} > {log} 2>&1"
