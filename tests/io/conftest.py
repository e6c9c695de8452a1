"""An S3 server on this machine, with a journal of what it is asked."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import fsspec
import pytest

CREDENTIALS = {"key": "testing", "secret": "testing"}


@dataclass
class Journal:
    """Requests in the order in which the server got them: (method, path, range)."""

    requests: list[tuple[str, str, str]] = field(default_factory=list)
    refuse: list[int] = field(default_factory=list)
    """Status codes to answer the next requests with."""

    def clear(self) -> None:
        self.requests.clear()

    def of(self, method: str) -> list[str]:
        return [path for verb, path, _ in self.requests if verb == method]

    def ranges(self) -> list[tuple[int, int]]:
        """First and last byte of every range that was read."""
        pairs = (said.removeprefix("bytes=").split("-") for verb, _, said in self.requests if verb == "GET" and said)
        return [(int(first), int(last)) for first, last in pairs]


@dataclass
class Bucket:
    """A bucket of its own for a test."""

    url: str
    options: dict[str, Any]
    journal: Journal
    name: str
    client: Any

    def keys(self) -> list[str]:
        return [entry["Key"] for entry in self.client.list_objects_v2(Bucket=self.name).get("Contents", [])]

    def unfinished(self) -> list[Any]:
        """Multipart uploads that were begun and neither completed nor aborted."""
        return list(self.client.list_multipart_uploads(Bucket=self.name).get("Uploads", []))

    def put(self, key: str, content: bytes) -> str:
        self.client.put_object(Bucket=self.name, Key=key, Body=content)
        return f"{self.url}/{key}"


@pytest.fixture(scope="session")
def s3_server() -> Iterator[tuple[str, Journal]]:
    """(endpoint, journal) of a server that lives as long as the tests."""
    server_module = pytest.importorskip("moto.server")
    journal = Journal()
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    app = server._server.app

    def record(environ: dict[str, Any], start_response: Any) -> Any:
        journal.requests.append((environ["REQUEST_METHOD"], environ["PATH_INFO"], environ.get("HTTP_RANGE", "")))
        if journal.refuse:
            start_response(f"{journal.refuse.pop(0)} Refused", [("Content-Length", "0")])
            return [b""]
        return app(environ, start_response)

    server._server.app = record
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}", journal
    server.stop()


@pytest.fixture
def bucket(s3_server: tuple[str, Journal]) -> Iterator[Bucket]:
    """An empty bucket, and how fsspec opens what is in it."""
    import boto3
    from botocore.config import Config

    endpoint, journal = s3_server
    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id=CREDENTIALS["key"],
        aws_secret_access_key=CREDENTIALS["secret"],
        config=Config(retries={"max_attempts": 1}, connect_timeout=5, read_timeout=20),
    )
    name = f"test-{uuid.uuid4().hex}"
    client.create_bucket(Bucket=name)
    options = {**CREDENTIALS, "endpoint_url": endpoint, "client_kwargs": {"region_name": "us-east-1"}}
    journal.clear()
    journal.refuse.clear()
    yield Bucket(f"s3://{name}", options, journal, name, client)
    journal.refuse.clear()
    fsspec.filesystem("s3", **options).invalidate_cache()
    client.close()
