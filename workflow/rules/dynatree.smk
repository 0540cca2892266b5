# DynaTree: drafters, then every decoding configuration against its interleaved reference.


rule fit_ngram:
    input:
        unpack(job_files),
    output:
        stages.FIT_NGRAM.result,
    log:
        "logs/fit_ngram/{digest}.log",
    benchmark:
        "benchmarks/fit_ngram/{digest}.tsv"
    wildcard_constraints:
        digest=due(stages.FIT_NGRAM),
    conda:
        "../../envs/measure.yaml"
    threads: 1
    resources:
        **cpu_resources,
    message:
        "Counting n-grams {wildcards.digest}"
    shell:
        "python -m ablations.dynatree.fit_ngram --spec {input.spec} --out {output} > {log} 2>&1"


rule distil_teacher:
    input:
        unpack(job_files),
    output:
        stages.DISTIL_TEACHER.result,
    log:
        "logs/distil_teacher/{digest}.log",
    benchmark:
        "benchmarks/distil_teacher/{digest}.tsv"
    wildcard_constraints:
        digest=due(stages.DISTIL_TEACHER),
    conda:
        "../../envs/measure.yaml"
    threads: job_threads
    resources:
        **model_resources,
    message:
        "Letting the target write text to distil a draft from {wildcards.digest}"
    shell:
        "python -m ablations.dynatree.distil_teacher --spec {input.spec} --out {output} > {log} 2>&1"


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
        digest=plan.pattern(stages.DISTIL_TEACHER),
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


rule distil:
    input:
        unpack(job_files),
    output:
        stages.DISTIL.result,
    log:
        "logs/distil/{digest}.log",
    benchmark:
        "benchmarks/distil/{digest}.tsv"
    wildcard_constraints:
        digest=due(stages.DISTIL),
    conda:
        "../../envs/measure.yaml"
    threads: job_threads
    resources:
        **model_resources,
    message:
        "Distilling draft {wildcards.digest}"
    shell:
        "python -m ablations.dynatree.distil --spec {input.spec} --out {output} > {log} 2>&1"


rule calibrate_costs:
    input:
        unpack(job_files),
    output:
        stages.CALIBRATE_COSTS.result,
    log:
        "logs/calibrate_costs/{digest}.log",
    benchmark:
        "benchmarks/calibrate_costs/{digest}.tsv"
    wildcard_constraints:
        digest=due(stages.CALIBRATE_COSTS),
    conda:
        "../../envs/measure.yaml"
    threads: job_threads
    resources:
        **timer_resources,
    message:
        "Measuring costs of drafting and verifying {wildcards.digest}"
    shell:
        "python -m ablations.dynatree.calibrate_costs --spec {input.spec} --out {output} > {log} 2>&1"


rule decode:
    input:
        unpack(job_files),
    output:
        record(stages.DECODE.result, "DynaTree"),
    log:
        "logs/decode/{digest}.log",
    benchmark:
        "benchmarks/decode/{digest}.tsv"
    wildcard_constraints:
        digest=due(stages.DECODE),
    conda:
        "../../envs/measure.yaml"
    threads: job_threads
    resources:
        **timer_resources,
    params:
        label=job_label,
    message:
        "Decoding with {params.label} (DynaTree)"
    shell:
        "python -m ablations.dynatree.decode --spec {input.spec} --out {output}"
        " --label {params.label:q} > {log} 2>&1"


rule grid:
    input:
        unpack(job_files),
    output:
        stages.GRID.result,
    log:
        "logs/grid/{digest}.log",
    benchmark:
        "benchmarks/grid/{digest}.tsv"
    wildcard_constraints:
        digest=due(stages.GRID),
    conda:
        "../../envs/measure.yaml"
    threads: job_threads
    resources:
        **model_resources,
    message:
        "Replaying a grid of drafts {wildcards.digest}"
    shell:
        "python -m ablations.dynatree.grid --spec {input.spec} --out {output} > {log} 2>&1"


rule written:
    input:
        [
            stages.WRITTEN.format(digest=job.digest)
            for job in plan.jobs.values()
            if job.stage == stages.DISTIL_TEACHER
        ],
    localrule: True


rule drafts:
    input:
        [job.path for job in plan.jobs.values() if job.stage == stages.DISTIL],
    localrule: True
