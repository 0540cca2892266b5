# Checkpoints and corpora, fetched or converted once and checked by SHA-256 whenever they are read.


rule prepare_model:
    input:
        unpack(job_files),
    output:
        stages.PREPARE_MODEL.result,
    log:
        "logs/prepare_model/{digest}.log",
    benchmark:
        "benchmarks/prepare_model/{digest}.tsv"
    wildcard_constraints:
        digest=due(stages.PREPARE_MODEL),
    conda:
        "../../envs/measure.yaml"
    threads: 1
    resources:
        **cpu_resources,
    message:
        "Preparing checkpoint {wildcards.digest}"
    shell:
        "python -m ablations.lm.prepare_model --spec {input.spec} --out {output} > {log} 2>&1"


rule prepare_text:
    input:
        unpack(job_files),
    output:
        stages.PREPARE_TEXT.result,
    log:
        "logs/prepare_text/{digest}.log",
    benchmark:
        "benchmarks/prepare_text/{digest}.tsv"
    wildcard_constraints:
        digest=due(stages.PREPARE_TEXT),
    conda:
        "../../envs/measure.yaml"
    threads: 1
    resources:
        **cpu_resources,
    message:
        "Preparing text {wildcards.digest}"
    shell:
        "python -m ablations.lm.prepare_text --spec {input.spec} --out {output} > {log} 2>&1"
