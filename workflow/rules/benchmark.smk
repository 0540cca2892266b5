# Every way to decode the study's prompts, interleaved in one process. Not part of the section.

if plan.benchmark:

    rule benchmark:
        input:
            unpack(job_files),
        output:
            stages.BENCHMARK.result,
        log:
            "logs/benchmark/{digest}.log",
        benchmark:
            "benchmarks/benchmark/{digest}.tsv"
        wildcard_constraints:
            digest=due(stages.BENCHMARK),
        conda:
            "../../envs/measure.yaml"
        threads: job_threads
        resources:
            **timer_resources,
        message:
            "Decoding in every way, side by side"
        shell:
            "python -m ablations.dynatree.benchmark --spec {input.spec} --out {output} > {log} 2>&1"

    localrules:
        benchmark_table,

    rule benchmark_table:
        input:
            plan=stages.BENCHMARK_STAMP,
            record=plan.benchmark.path,
        output:
            summary=stages.BENCHMARK_SUMMARY,
            table=stages.BENCHMARK_TABLE,
        log:
            "logs/benchmark_table.log",
        benchmark:
            "benchmarks/benchmark_table.tsv"
        conda:
            "../../envs/paper.yaml"
        threads: 1
        resources:
            gpu=0,
        message:
            "Summing the decoding benchmark up in {output.table}"
        shell:
            "python -m ablations.paper.benchmark --plan {input.plan} --out {output.summary}"
            " --table {output.table} > {log} 2>&1"
