# Reproducible ablation studies of LLM inference: the table of contents.
#
#   snakemake --cores 1 paper/ablation.tex       the section, its tables and figures
#   snakemake --cores 1 records                  the measurements alone
#   snakemake --cores 1 A7                       one experiment
#   snakemake --cores 1 results/benchmark/decoding.json   every way to decode, side by side in one process
#   snakemake --cores 1 paper/ablation.pdf       the compiled section (needs latexmk)


# The study of the working directory; where it has none, the one that is shipped.
STUDY = "config.yaml"
if not os.path.exists(STUDY):
    STUDY = f"{workflow.current_basedir.get_path_or_uri(secret_free=True)}/{STUDY}"


configfile: STUDY


# One measurement at a time on each machine, however many machines a scheduler spreads the jobs over.
resource_scopes:
    timer="local",


# Checks the configuration, plans its jobs, and writes their immutable specs and the paper's stamps.
include: "workflow/rules/plan.smk"
include: "workflow/rules/jobs.smk"
include: "workflow/rules/paper.smk"
include: "workflow/rules/docs.smk"


onstart:
    prepare_submission(workflow, longest_minutes)
    wake_for_jobs_alone(workflow)


onsuccess:
    say_where(plan)


onerror:
    report_missing(plan)


localrules:
    all,
    records,


rule all:
    default_target: True
    input:
        "paper/ablation.tex",


rule records:
    input:
        plan.records,


refuse_taken_names(rules)

for row in plan.rows:

    rule:
        name:
            row.experiment.id
        input:
            [job.path for job in row.jobs],
        localrule: True


# What is finished is made by no rule; asked for by its path, it is there. A panel makes no result by its path.
for target, job in named_results(sys.argv, plan.jobs.values(), finished):

    rule:
        name:
            target
        input:
            lambda wildcards, job=job: file_of(job),
        localrule: True
