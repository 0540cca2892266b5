# The section: records -> summary -> tables, figures, text. Stamps carry all else that decides the paper.
# These rules take seconds and run where snakemake runs, also when a cluster measures.


localrules:
    collect,
    tables,
    figures,
    numbers,
    ablation_section,
    ablation_pdf,
    results_page,
    archive,


rule collect:
    input:
        plan=stages.COLLECT_STAMP,
        records=plan.records,
        sweeps=[job.path for job in plan.sweeps],
        grids=[job.path for job in plan.grids.values()],
        rebuilt=lambda wildcards: [file_of(plan.jobs[digest]) for digest in damage],
    output:
        stages.SUMMARY,
    log:
        "logs/collect.log",
    benchmark:
        "benchmarks/collect.tsv"
    conda:
        "../../envs/paper.yaml"
    threads: 1
    resources:
        gpu=0,
    message:
        "Collecting the records into {output}"
    shell:
        "python -m ablations.paper.collect --plan {input.plan} --out {output} > {log} 2>&1"


rule tables:
    input:
        stamp=stages.TABLES_STAMP,
        summary=stages.SUMMARY,
    output:
        [shown(path) for path in stages.TABLES],
    log:
        "logs/tables.log",
    benchmark:
        "benchmarks/tables.tsv"
    conda:
        "../../envs/paper.yaml"
    threads: 1
    resources:
        gpu=0,
    params:
        templates=shipped("paper/templates"),
    message:
        "Writing tables"
    shell:
        "python -m ablations.paper.tables --summary {input.summary} --templates {params.templates:q}"
        " --out paper/tables > {log} 2>&1"


rule figures:
    input:
        stamp=stages.FIGURES_STAMP,
        summary=stages.SUMMARY,
    output:
        [shown(path) if path.endswith(".png") else path for path in stages.FIGURES],
    log:
        "logs/figures.log",
    benchmark:
        "benchmarks/figures.tsv"
    conda:
        "../../envs/paper.yaml"
    threads: 1
    resources:
        gpu=0,
    message:
        "Drawing figures"
    shell:
        "python -m ablations.paper.figures --summary {input.summary} --out paper/figures > {log} 2>&1"


rule numbers:
    input:
        stamp=stages.NUMBERS_STAMP,
        summary=stages.SUMMARY,
    output:
        macros=report(
            stages.MACROS,
            caption="../report/numbers.rst",
            category="Numbers",
            labels={"name": "macros"},
        ),
        provenance=report(
            stages.PROVENANCE,
            caption="../report/numbers.rst",
            category="Numbers",
            labels={"name": "provenance"},
        ),
    log:
        "logs/numbers.log",
    benchmark:
        "benchmarks/numbers.tsv"
    conda:
        "../../envs/paper.yaml"
    threads: 1
    resources:
        gpu=0,
    params:
        templates=shipped("paper/templates"),
    message:
        "Writing numbers and where each comes from"
    shell:
        "python -m ablations.paper.numbers --summary {input.summary} --templates {params.templates:q}"
        " --macros {output.macros} --provenance {output.provenance} > {log} 2>&1"


rule ablation_section:
    input:
        stamp=stages.SECTION_STAMP,
        summary=stages.SUMMARY,
        tables=rules.tables.output,
        figures=rules.figures.output,
        numbers=rules.numbers.output,
    output:
        report(
            stages.SECTION,
            caption="../report/section.rst",
            category="Section",
            labels={"name": "LaTeX"},
        ),
    log:
        "logs/ablation_section.log",
    benchmark:
        "benchmarks/ablation_section.tsv"
    conda:
        "../../envs/paper.yaml"
    threads: 1
    resources:
        gpu=0,
    params:
        templates=shipped("paper/templates"),
    message:
        "Writing paper/ablation.tex"
    shell:
        "python -m ablations.paper.section --summary {input.summary} --templates {params.templates:q}"
        " --out {output} > {log} 2>&1"


rule ablation_pdf:
    input:
        stamp=stages.PDF_STAMP,
        section=stages.SECTION,
        main=shipped("paper/main.tex"),
        references=shipped("paper/references.bib"),
    output:
        stages.PDF,
    log:
        "logs/ablation_pdf.log",
    benchmark:
        "benchmarks/ablation_pdf.tsv"
    conda:
        "../../envs/paper.yaml"
    threads: 1
    resources:
        gpu=0,
    message:
        "Compiling paper/ablation.pdf"
    shell:
        "python -m ablations.paper.pdf --main {input.main:q} --section {input.section} --out {output}"
        " > {log} 2>&1"


rule results_page:
    input:
        stamp=stages.PAGE_STAMP,
        plan=stages.COLLECT_STAMP,
        summary=stages.SUMMARY,
    output:
        report(
            stages.PAGE,
            caption="../report/page.rst",
            category="Section",
            labels={"name": "all experiments"},
        ),
    log:
        "logs/results_page.log",
    benchmark:
        "benchmarks/results_page.tsv"
    conda:
        "../../envs/paper.yaml"
    threads: 1
    resources:
        gpu=0,
    params:
        templates=shipped("paper/templates"),
    message:
        "Writing {output}"
    shell:
        "python -m ablations.paper.page --summary {input.summary} --plan {input.plan}"
        " --templates {params.templates:q} --logs logs --out {output} > {log} 2>&1"


rule archive:
    input:
        stamp=stages.ARCHIVE_STAMP,
        plan=stages.COLLECT_STAMP,
        summary=stages.SUMMARY,
    output:
        stages.ARCHIVE,
    log:
        "logs/archive.log",
    benchmark:
        "benchmarks/archive.tsv"
    conda:
        "../../envs/paper.yaml"
    threads: 1
    resources:
        gpu=0,
    message:
        "Packing records, specs and digests into {output}"
    shell:
        "python -m ablations.paper.archive pack --plan {input.plan} --out {output} > {log} 2>&1"


# Every way to decode the study's prompts, side by side. Not part of the section.
if plan.benchmark:

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
