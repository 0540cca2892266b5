# A rule for each stage that the study has jobs of. src/ablations/study/planning/stages.py has the table of stages
# and says which stage reads what; a job's spec says which files it reads.

for stage in filter(plan.jobs_of, stages.STAGES):

    if stage.panel:

        # One process does what several jobs lack. Their results are no outputs of the rule, since Snakemake deletes
        # the outputs of a job that failed; its output is the receipt.
        rule:
            name:
                stage.rule
            input:
                unpack(panel_files),
            output:
                stage.output,
            log:
                f"logs/{stage.rule}/{{panel}}.log",
            benchmark:
                f"benchmarks/{stage.rule}/{{panel}}.tsv"
            wildcard_constraints:
                panel=DIGEST,
            conda:
                "../../envs/measure.yaml"
            threads: job_threads
            resources:
                **resources_of[stage.takes],
            params:
                launcher=job_launcher if stage.takes == "ranks" else "",
                passes_on=stage.passes_on,
                receipts=receipts_of,
                what=panel_content,
            message:
                stage.message
            shell:
                "python -m ablations.core.supervise --panel {input.panel} --out {output}"
                " --passes-on {params.passes_on} --launcher={params.launcher:q} {params.receipts}"
                " > {log} 2>&1"

    if stage.moves:

        rule:
            name:
                f"{stage.rule}_result"
            input:
                receipt_of,
            output:
                stage.result,
            log:
                f"logs/{stage.rule}_result/{{digest}}.log",
            wildcard_constraints:
                digest=due(stage),
            localrule: True
            threads: 1
            resources:
                gpu=0,
            params:
                made=made_by(stage),
            message:
                "Taking over {output}"
            shell:
                "mv {params.made} {output} 2> {log}"

    if not stage.panel:

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
            # Joining takes less than a submission would.
            localrule: stage is stages.JOIN
            conda:
                "../../envs/measure.yaml"
            threads: job_threads
            resources:
                **resources_of[stage.takes],
            params:
                module=stage.module,
                label=job_label,
                receipts=receipts_of,
            message:
                stage.message
            shell:
                # Evaluated when a job runs, after the loop: what differs from stage to stage is a parameter.
                "python -m {params.module} --spec {input.spec} --out {output} --label={params.label:q}"
                " {params.receipts} > {log} 2>&1"


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
