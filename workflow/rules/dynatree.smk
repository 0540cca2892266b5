# DynaTree: drafters, then every decoding configuration against its interleaved reference.


rule fit_ngram:
    input:
        unpack(job_inputs),
    output:
        stages.FIT_NGRAM.result,
    log:
        "logs/fit_ngram/{digest}.log",
    benchmark:
        "benchmarks/fit_ngram/{digest}.tsv"
    wildcard_constraints:
        digest=plan.pattern(stages.FIT_NGRAM),
    conda:
        "../../envs/measure.yaml"
    threads: 1
    resources:
        gpu=0,
        runtime=model_resources["runtime"],
    message:
        "Counting n-grams {wildcards.digest}"
    shell:
        "python -m ablations.dynatree.fit_ngram --spec {input.spec} --out {output} > {log} 2>&1"


rule calibrate_costs:
    input:
        unpack(job_inputs),
    output:
        stages.CALIBRATE_COSTS.result,
    log:
        "logs/calibrate_costs/{digest}.log",
    benchmark:
        "benchmarks/calibrate_costs/{digest}.tsv"
    wildcard_constraints:
        digest=plan.pattern(stages.CALIBRATE_COSTS),
    conda:
        "../../envs/measure.yaml"
    threads: job_threads
    resources:
        **model_resources,
        timer=1,
    message:
        "Measuring costs of drafting and verifying {wildcards.digest}"
    shell:
        "python -m ablations.dynatree.calibrate_costs --spec {input.spec} --out {output} > {log} 2>&1"


rule decode:
    input:
        unpack(job_inputs),
    output:
        stages.DECODE.result,
    log:
        "logs/decode/{digest}.log",
    benchmark:
        "benchmarks/decode/{digest}.tsv"
    wildcard_constraints:
        digest=plan.pattern(stages.DECODE),
    conda:
        "../../envs/measure.yaml"
    threads: job_threads
    resources:
        **model_resources,
        timer=1,
    params:
        label=job_label,
    message:
        "Decoding with {params.label} (DynaTree)"
    shell:
        "python -m ablations.dynatree.decode --spec {input.spec} --out {output}"
        " --label {params.label:q} > {log} 2>&1"
