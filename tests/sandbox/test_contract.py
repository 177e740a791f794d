"""The contract, attacked by schemathesis: requests generated from it, valid and not, find nothing."""

import asyncio
import sys
from pathlib import Path

import pytest
import yaml

from tests.support.contract import FILE
from tests.support.seeds import examples, seeds
from tfruns.sandbox import Sandbox

JOB = "job-1"
PROGRAM = "import sys; from schemathesis.cli import schemathesis; sys.exit(schemathesis())"


@pytest.mark.skipif(not (Path(__file__).parents[3] / "shared" / "openapi.yaml").exists(), reason="it isn't beside us")
def test_the_contract_here_is_the_contract() -> None:
    assert FILE.read_bytes() == (Path(__file__).parents[3] / "shared" / "openapi.yaml").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(("share", "job_id"), [(0.8, JOB), (0.2, None)], ids=["a job", "any job"])
async def test_generated_requests_have_no_finding(tmp_path: Path, share: float, job_id: str | None) -> None:
    contract = yaml.safe_load(FILE.read_text())
    operation = contract["paths"]["/api/svc/v1/jobs/{jobId}/runs"]["get"]
    # What the contract leaves out, and every server responds to.
    operation["responses"] |= {"401": operation["responses"]["403"]}
    (tmp_path / "openapi.yaml").write_text(yaml.safe_dump(contract))
    fixed = f'[parameters]\n"path.jobId" = "{job_id}"\n' if job_id else ""
    (tmp_path / "schemathesis.toml").write_text(fixed)
    number, seed = int(examples(500) * share), seeds(1)[0] + 1
    async with Sandbox([JOB], 120, seed=4) as s:
        arguments = ["--config-file", "schemathesis.toml", "run", "openapi.yaml", "--url", s.url, "--no-color"]
        arguments += ["-H", f"Authorization: Bearer {s.api_key}", "-n", str(number), "--seed", str(seed)]
        arguments += [
            "--continue-on-failure",
            "--phases",
            "examples,coverage,fuzzing",
            "--suppress-health-check",
            "all",
        ]
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", PROGRAM, *arguments), cwd=tmp_path, stdout=pipe, stderr=asyncio.subprocess.STDOUT
        )
        out, _ = await process.communicate()
    assert process.returncode == 0, out.decode()
    assert len(s.requests) >= number
    statuses = {request.status for request in s.requests}
    assert statuses >= ({200, 422} if job_id else {404, 422})
    assert max(statuses) < 500
