# Pictures that the documentation keeps under version control; no result depends on them.


rule rulegraph:
    input:
        "Snakefile",
        sorted(str(path) for path in ROOT.glob("workflow/rules/*.smk")),
    output:
        "docs/pictures/rulegraph.svg",
    log:
        "logs/rulegraph.log",
    localrule: True
    conda:
        "../../envs/paper.yaml"
    message:
        "Drawing the rules of the workflow (needs graphviz)"
    shell:
        # In a folder without results, where no finished record hides what it was made from.
        "empty=$(mktemp -d) && trap 'rm -r \"$empty\"' EXIT"
        ' && for name in config.yaml texts drafts; do ln -s "$PWD/$name" "$empty"; done'
        ' && snakemake --directory "$empty" --rulegraph dot -- paper/ablation.tex 2> {log}'
        " | dot -Tsvg > {output}"
