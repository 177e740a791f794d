"""Where the runs of a sandbox come from: made-up ones that look real, and files. They have the form of the API's JSON.

The same seed and the same job make the same runs, byte for byte. Reading and writing the JSON is its own, so that tests
of the SDK's decoding don't depend on what they test.
"""

import gzip
import itertools
import random
import re
import zlib
from collections.abc import Iterator
from os import PathLike, fspath
from typing import Any

import attrs
import msgspec

from tfruns.models import JobRun, Subject, SubjectType, wire_name
from tfruns.models import JobRunStatus as Status

Wire = dict[str, Any]
"""A run or a subject in the form of the API's JSON: camelCase names, plain strings for enums."""

_RUN_FIELDS = {field.name: wire_name(field.name) for field in attrs.fields(JobRun)}
_NAMES = {wire: name for name, wire in _RUN_FIELDS.items()}

encode = msgspec.json.encode
"""The JSON text of a run, in UTF-8."""
decode = msgspec.json.Decoder(Wire).decode

NEWEST = 1_767_225_600_000
"""When the newest run of a history was created, by default, in ms since 1970: 2026-01-01T00:00:00Z."""

_HISTORY = 180 * 24 * 3600 * 1000
_LATEST_VERSION = 12
_LAST_WITHOUT_SUBJECT = 6  # older runs have only the slug of the subject that started them

# The statuses of the newest runs, repeated. They aren't drawn at random, so that even the rarest status is in every
# history that isn't very short.
_RECENT = (
    *(Status.CREATED, Status.SCHEDULED, Status.RUNNING, Status.FINISHED, Status.RUNNING, Status.FAILED),
    *(Status.RUNNING, Status.TERMINATION_REQUESTED, Status.FINISHED, Status.TERMINATING, Status.SCHEDULED),
    *(Status.UNKNOWN, Status.TERMINATED),
)
_MOST_RECENT = 5 * len(_RECENT)  # of a long history: a job has some 30 open runs, not hundreds
KNOWN_NAME = "train-7f3a"
"""The name of one of the newest runs of each job, which is RUNNING at the start: documentation can refer to it."""
_KNOWN_BY_NAME = _RECENT.index(Status.RUNNING)
# The statuses of older runs, each with its share in percent.
_SETTLED = {
    Status.FINISHED: 78.0,
    Status.FAILED: 15.0,
    Status.TERMINATED: 5.5,
    Status.UNKNOWN: 1.3,
    Status.RUNNING: 0.2,
}

_APPLICATIONS = ("churn-model", "embeddings", "fraud-scoring", "llm-finetune", "nightly-etl", "reranker")
_ODD_STEMS = ("学習", "train-größe", "🚀-train", 'train "A/B" 100%_', "entraine\u0301", "训练")
_COMMANDS = (
    "python train.py --epochs {n} --lr 3e-4 --data s3://acme-ml/features/v{n}",
    "python -m jobs.nightly --date 2025-11-{n:02d} --workers {n}",
    "torchrun --nproc-per-node 8 finetune.py -c llama-{n}b.yaml",
    "spark-submit --num-executors {n} etl/rerank.py --since '{n} days ago'",
    'bash -c "dvc pull && python run.py --fold {n}"',
    "python predict.py \\\n  --batch-size {n} \\\n  --output 'gs://acme/予測/{n}'",
    'python report.py --title "Übersicht: {n}% ✅" --to team@example.com',
)
_ERRORS = (
    "OOMKilled: container exceeded its memory limit of {n}Gi",
    "ModuleNotFoundError: No module named 'xgboost'",
    'Traceback (most recent call last):\n  File "train.py", line {n}, in <module>\nValueError: NaN loss at step {n}',
    "CUDA out of memory. Tried to allocate {n}.00 GiB (GPU 0; 79.15 GiB total capacity)",
    "UnicodeDecodeError: 'utf-8' codec can't decode byte 0xff in 'données_é\u0301té.csv' 💥",
    'ファイルが見つかりません: "s3://acme-ml/特徴量/{n}.parquet"',
)
_EXIT_CODES = (1, 1, 1, 2, 134, 137, 139)
_SUBJECTS = (
    (SubjectType.USER, "ana.souza@example.com", "Ana Souza"),
    (SubjectType.USER, "zoe.mueller@example.com", "Zoë Müller"),
    (SubjectType.USER, "t.yamada@example.com", "山田 太郎"),
    (SubjectType.USER, "jose@example.com", 'Jose\u0301 "Pepe" Núñez'),
    (SubjectType.TEAM, "ml-platform", "ML Platform 🛠"),
    (SubjectType.SERVICEACCOUNT, "ci-deployer", None),
    (SubjectType.VIRTUALACCOUNT, "nightly-scheduler", "Nightly scheduler"),
    (SubjectType.EXTERNAL_IDENTITY, "okta:00u1f9:ext@partner.example", None),
    (SubjectType.AGENT_IDENTITY, "triage-agent", "Triage agent"),
    (SubjectType.ROLE, None, "job-admin"),
)


def made_up_job_ids(seed: int, count: int) -> tuple[str, ...]:
    """Ids for so many jobs. The first ids are the same for every count."""
    rng = random.Random(f"jobs/{seed}")  # noqa: S311  # made-up data
    return tuple(_identifier(rng) for _ in range(count))


def _identifier(rng: random.Random) -> str:
    return "".join(rng.choices("abcdefghijklmnopqrstuvwxyz0123456789", k=25))


def history(seed: int, job_id: str, count: int, now: int = NEWEST) -> Iterator[Wire]:
    """So many runs over the half year that ends now, the newest first; those of one millisecond sorted by id."""
    made = RunMaker(seed, job_id).history(count, now)
    for _, runs in itertools.groupby(made, lambda run: run["createdAt"]):
        yield from sorted(runs, key=lambda run: run["id"])


class RunMaker:
    """Makes the runs of one job. They depend on nothing but the arguments and the calls before."""

    def __init__(self, seed: int, job_id: str, since: float | None = None) -> None:
        self._rng = rng = random.Random(f"runs/{seed}/{job_id}")  # noqa: S311  # made-up data
        self._job_id = job_id
        self._application = rng.choice(_APPLICATIONS)
        self._deployments = [_identifier(rng) for _ in range(_LATEST_VERSION)]
        self._subjects = [self._subject(*subject) for subject in _SUBJECTS]
        if since is not None:
            rng.seed(f"runs/{seed}/{job_id}/{since}")

    def history(self, count: int, now: int) -> Iterator[Wire]:
        rng, created_at, version = self._rng, now, _LATEST_VERSION
        recent = max(len(_RECENT), min(count // 50, _MOST_RECENT))
        settled = rng.choices(list(_SETTLED), list(_SETTLED.values()), k=count)
        for age in range(count):
            if age and rng.random() > 0.03:  # the others are created in the same millisecond as the one before
                created_at -= 1 + int(rng.expovariate(count / _HISTORY))
                version = _LATEST_VERSION - age * _LATEST_VERSION // count
            status = _RECENT[age % len(_RECENT)] if age < recent else settled[age]
            run = self.run(created_at, status, version)
            if run["endTime"] is not None and run["endTime"] > now:
                run |= {"endTime": now, "duration": (now - created_at) // 1000}
            if age == _KNOWN_BY_NAME:
                run["name"] = KNOWN_NAME
            yield run

    def run(self, created_at: int, status: Status, version: int = _LATEST_VERSION) -> Wire:
        """A run created at this time in ms since 1970, whose other fields agree with these."""
        rng = self._rng
        id_, n = _identifier(rng), 1 + int(rng.random() * 28)
        stem = "train" if rng.random() < 0.97 else rng.choice(_ODD_STEMS)
        subject = None if rng.random() < 0.1 else rng.choice(self._subjects)  # None: a schedule started it
        seconds = int(rng.lognormvariate(6, 1.6)) if status.is_terminal else None
        error, exit_code = _outcome(status, rng, n)
        return {
            "id": id_,
            "name": f"{stem}-{id_[-8:]}",
            "applicationName": self._application,
            "deploymentVersion": str(version),
            "createdAt": created_at,
            "endTime": None if seconds is None else created_at + seconds * 1000 + int(rng.random() * 1000),
            "duration": seconds,
            "command": rng.choice(_COMMANDS).format(n=n),
            "totalRetries": int(rng.random() * 4) if status == Status.FAILED else 0,
            "error": error,
            "status": status.value,
            "triggeredBy": subject and subject.get("subjectSlug"),
            "triggeredBySubject": subject if version > _LAST_WITHOUT_SUBJECT else None,
            "exitCode": exit_code,
            "sparkUi": f"https://spark.acme.example/history/{id_}" if rng.random() < 0.05 else None,
            "applicationId": self._job_id if rng.random() < 0.98 else None,
            "deploymentId": self._deployments[version - 1] if rng.random() < 0.98 else None,
            "tenantName": "acme" if rng.random() < 0.98 else None,
        }

    def _subject(self, kind: SubjectType, slug: str | None, display_name: str | None) -> Wire:
        fields = {
            "subjectId": _identifier(self._rng),
            "subjectType": kind.value,
            "subjectSlug": slug,
            "subjectDisplayName": display_name,
            "subjectPatName": "laptop" if kind == SubjectType.USER and self._rng.random() < 0.5 else None,
            "subjectControllerName": "tfy-cron" if kind == SubjectType.VIRTUALACCOUNT else None,
            "subjectExternalIdentitySlug": slug if kind == SubjectType.EXTERNAL_IDENTITY else None,
        }
        # Nulls are written out in a run and left out in a subject: clients must read both.
        return {name: value for name, value in fields.items() if value is not None}


def ended(run: Wire, status: Status, when: float) -> Wire:
    """The changes of a run that ends with this status at this time, in ms since 1970, but not before its creation."""
    rng = random.Random(f"end/{run['id']}")  # noqa: S311  # made-up data
    error, exit_code = _outcome(status, rng, rng.randint(1, 28))
    end_time = max(int(when), run["createdAt"])
    return {
        "status": status.value,
        "endTime": end_time,
        "duration": int(end_time - run["createdAt"]) // 1000,
        "error": error,
        "exitCode": exit_code,
    }


def _outcome(status: Status, rng: random.Random, n: int) -> tuple[str | None, int | None]:
    """An error and an exit code that go with the status; n is a number for the text."""
    if status == Status.FAILED:
        return rng.choice(_ERRORS).format(n=n), rng.choice(_EXIT_CODES)
    if status == Status.TERMINATED:
        return rng.choice((None, "Terminated by user")), rng.choice((None, 143))
    return None, 0 if status == Status.FINISHED else None


# --- runs as JSON ---


def parse(text: bytes) -> JobRun:
    try:
        return msgspec.json.decode(text, type=JobRun)
    except msgspec.ValidationError as error:
        raise ValueError(re.sub(r"(?<=\$\.)\w+", lambda path: _NAMES.get(path[0], path[0]), str(error))) from None


def from_fields(fields: dict[str, Any]) -> Wire:
    """These fields of a `JobRun`, given by their names there, in the form of the JSON."""
    unknown = fields.keys() - _RUN_FIELDS.keys()
    if unknown:
        given = ", ".join(map(repr, sorted(unknown)))
        raise TypeError(f"a run has no field {given}; its fields are {', '.join(_RUN_FIELDS)}")
    wire = {
        _RUN_FIELDS[name]: value.to_dict() if isinstance(value, Subject) else value for name, value in fields.items()
    }
    status = wire.get("status")
    if type(status) is str and status.upper() in Status.__members__:  # in any case, as in the client's filters
        wire["status"] = status.upper()
    return wire


def read_runs(path: str | PathLike[str]) -> dict[str, list[Wire]]:
    """The runs of each job in a file of JSON lines, such as `tfruns export` writes; if a run is there twice, the last.

    Each line is a run as the API's JSON has it, and its job in `jobId`; the file may be compressed by gzip.
    """
    jobs: dict[str, dict[str, Wire]] = {}
    with open(path, "rb") as file:
        is_gzip = file.read(2) == b"\x1f\x8b"
    with gzip.open(path) if is_gzip else open(path, "rb") as lines:
        try:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    job_id, run = _read(line, f"{fspath(path)}, line {number}")
                    jobs.setdefault(job_id, {})[run["id"]] = run
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(f"{fspath(path)} is cut off or damaged: {error}") from None
    if not jobs:
        raise ValueError(f"{fspath(path)} holds no runs")
    return {job_id: list(runs.values()) for job_id, runs in jobs.items()}


def _read(line: bytes, where: str) -> tuple[str, Wire]:
    """The job and the run of a line. What older servers sent is brought to the form of the contract."""
    try:
        run = msgspec.json.decode(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where} isn't JSON: {error}") from None
    if not isinstance(run, dict) or not isinstance(job_id := run.pop("jobId", None), str) or not job_id:
        raise ValueError(f'{where} isn\'t a run with its job in "jobId"')
    try:
        if type(version := run.get("deploymentVersion")) is int:
            run["deploymentVersion"] = str(version)
        if isinstance(duration := run.get("duration"), str):
            run["duration"] = int(duration)
        run.setdefault("totalRetries", 0)
        parse(encode(run))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where} isn't a run: {error}") from None
    return job_id, run
