"""Jobs on a cluster are planned as they were submitted."""

from types import SimpleNamespace

import pytest

from ablations.study.errors import UserError
from ablations.study.planning.submitted import require_planned


def test_a_job_that_is_planned_no_more_is_refused():
    plan = SimpleNamespace(jobs={"0123456789abcdef": None})
    require_planned(plan, ["snakemake", "--target-jobs", "decode:digest=0123456789abcdef", "--force"])
    with pytest.raises(UserError, match=r"^results/spec/1123456789abcdef.json: the code or constraints"):
        require_planned(plan, ["--target-jobs", "decode:digest=1123456789abcdef"])
