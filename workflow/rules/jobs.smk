# A rule for each stage that the study has jobs of. src/ablations/study/planning/stages.py has the table of stages
# and says which stage reads what; a job's spec says which files it reads.

for stage in filter(plan.jobs_of, stages.STAGES):

    rule:
        name:
            stage.rule
        input:
            unpack(job_files),
        output:
            result_of(stage),
        log:
            f"logs/{stage.rule}/{{digest}}.log",
        benchmark:
            f"benchmarks/{stage.rule}/{{digest}}.tsv"
        wildcard_constraints:
            digest=due(stage),
        conda:
            "../../envs/measure.yaml"
        threads: job_threads
        resources:
            **resources_of[stage.takes],
        params:
            launcher=job_launcher if stage.takes == "ranks" else "",
            module=stage.module,
            label=job_label,
            options=job_options,
        message:
            stage.message
        shell:
            # Evaluated when a job runs, after the loop: what differs from stage to stage is a parameter.
            "{params.launcher} python -m {params.module} --spec {input.spec} --out {output}"
            " {params.options} > {log} 2>&1"


# An evaluation is one job, or several, each with a shard of its prompts, and one that joins their records. The
# record has the same name either way: the number of shards is no part of a result.
scattergather:
    evaluation=plan.config.sdtp.evaluation.shards,


if plan.config.sdtp.evaluation.shards > 1 and plan.jobs_of(stages.EVALUATE_SDTP):

    ruleorder: join_shards > evaluate_sdtp

    use rule evaluate_sdtp as evaluate_shard with:
        output:
            stages.SHARD,
        log:
            "logs/evaluate_sdtp/{digest}.{scatteritem}.log",
        benchmark:
            "benchmarks/evaluate_sdtp/{digest}.{scatteritem}.tsv"
        wildcard_constraints:
            digest=due(stages.EVALUATE_SDTP, done={*finished, *finished_shards()}),
        message:
            "Evaluating {params.label} (SDTP), share {wildcards.scatteritem}"

    rule join_shards:
        input:
            spec=ancient(stages.SPEC),
            shards=gather.evaluation(stages.SHARD.replace("{digest}", "{{digest}}")),
        output:
            result_of(stages.EVALUATE_SDTP),
        log:
            "logs/join_shards/{digest}.log",
        benchmark:
            "benchmarks/join_shards/{digest}.tsv"
        wildcard_constraints:
            digest=due(stages.EVALUATE_SDTP),
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


if plan.jobs_of(stages.DISTIL_TEACHER):

    rule write_down:
        input:
            stamp=stages.WRITTEN_STAMP,
            teacher=ancient(stages.DISTIL_TEACHER.result),
            model=lambda wildcards: ancient(
                str(plan.jobs[wildcards.digest].inputs["model"].path)
            ),
        output:
            stages.WRITTEN,
        log:
            "logs/write_down/{digest}.log",
        benchmark:
            "benchmarks/write_down/{digest}.tsv"
        wildcard_constraints:
            digest=due(stages.DISTIL_TEACHER, done=()),
        conda:
            "../../envs/measure.yaml"
        threads: 1
        resources:
            **cpu_resources,
        message:
            "Writing down what the target wrote in {output}"
        shell:
            "python -m ablations.dynatree.written --model {input.model} --teacher {input.teacher}"
            " --out {output} > {log} 2>&1"


rule written:
    input:
        [
            stages.WRITTEN.format(digest=job.digest)
            for job in plan.jobs_of(stages.DISTIL_TEACHER)
        ],
    localrule: True


rule drafts:
    input:
        [job.path for job in plan.jobs_of(stages.DISTIL)],
    localrule: True
