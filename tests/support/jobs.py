"""Jobs whose runs a test changes as it likes, in the form in which a server sends them."""

from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.support.hostile import Request, page, response
from tfruns import Client
from tfruns.export import ExportSummary, export_runs


class Jobs(dict[str, list[Any]]):
    """The runs of each job, as a server has them, and how many requests were made for them."""

    client: Client
    requests = 0

    def reply(self, request: Request) -> bytes:
        self.requests += 1
        found = urlsplit(request.target)
        if (runs := self.get(unquote(found.path.split("/")[-2]))) is None:
            return response(404, {"statusCode": 404, "message": "no such job"})
        prefix = parse_qs(found.query).get("searchPrefix", [""])[0]
        runs = [each for each in runs if each["id"].startswith(prefix)]
        return response(200, page(runs[request.offset : request.offset + request.limit], len(runs)))

    async def export(self, destination: Path | str, *job_ids: str, **options: Any) -> ExportSummary:
        """Export these jobs, or all."""
        return await export_runs(self.client, job_ids or [*self], destination, **options)
