"""An S3 server on loopback (moto's), which may refuse to be written, and a way to it that can be cut."""

import contextlib
import json
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.helpers.commands import environment, free_ports, wait_for

BUCKET = "bucket"
_SERVE = "import sys; from moto.server import main; main(sys.argv[1:])"
# What these do is done before access is checked: making the bucket, the reader, its rights and its key.
_FREE_ACTIONS = 4
_READER = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": ["s3:Get*", "s3:List*"], "Resource": "*"}],
}


@dataclass
class Store:
    """Where the server is, and the keys to it as a process's environment."""

    port: int
    keys: dict[str, str] = field(default_factory=dict)

    def uri(self, path: str, port: int | None = None) -> str:
        """A URI below the bucket, through another port if given."""
        options = f"endpoint_override=127.0.0.1:{port or self.port}&scheme=http&region=us-east-1"
        return f"s3://{BUCKET}/{path}?{options}"

    def environment(self) -> dict[str, str]:
        """The environment of a job that may use the store."""
        return environment(**self.keys)

    def client(self, service: str) -> Any:
        """A boto3 client."""
        import boto3

        return boto3.client(
            service,
            endpoint_url=f"http://127.0.0.1:{self.port}",
            region_name="us-east-1",
            aws_access_key_id=self.keys["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.keys["AWS_SECRET_ACCESS_KEY"],
        )


@contextlib.contextmanager
def object_store(read_only: bool = False) -> Iterator[Store]:
    """A server with an empty bucket; `read_only` gives keys that may only read."""
    pytest.importorskip("moto", reason="moto, an S3 server for tests, is not installed")
    (port,) = free_ports(25000, 1)
    changes = {"INITIAL_NO_AUTH_ACTION_COUNT": str(_FREE_ACTIONS)} if read_only else {}
    server = subprocess.Popen(
        [sys.executable, "-c", _SERVE, "-H", "127.0.0.1", "-p", str(port)],
        env=environment(**changes),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    keys = {"AWS_ACCESS_KEY_ID": "writer", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_EC2_METADATA_DISABLED": "true"}
    store = Store(port, keys)
    try:
        wait_for(f"http://127.0.0.1:{port}/moto-api", seconds=60)  # what is asked there is no action
        store.client("s3").create_bucket(Bucket=BUCKET)
        if read_only:
            iam = store.client("iam")
            iam.create_user(UserName="reader")
            iam.put_user_policy(UserName="reader", PolicyName="read", PolicyDocument=json.dumps(_READER))
            made = iam.create_access_key(UserName="reader")["AccessKey"]
            keys |= {"AWS_ACCESS_KEY_ID": made["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": made["SecretAccessKey"]}
        yield store
    finally:
        server.terminate()
        server.wait(timeout=30)


@contextlib.contextmanager
def keys_in_this_process(store: Store) -> Iterator[None]:
    """This process itself may use the store."""
    before = {name: os.environ.get(name) for name in store.keys}
    os.environ.update(store.keys)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


class Cable:
    """A port that leads to another one, until it is cut: then connections end, and new ones are refused."""

    def __init__(self, target: int) -> None:
        (self.port,) = free_ports(26000, 1)
        self._target = target
        self._connected = threading.Event()
        self._ended = threading.Event()
        self.carried = 0  # connections so far
        self.mend()
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def cut(self) -> None:
        """Cut the cable."""
        self._connected.clear()
        self._listener.close()

    def mend(self) -> None:
        """Mend the cable."""
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("127.0.0.1", self.port))
        self._listener.listen(64)
        self._connected.set()

    def close(self) -> None:
        """End it for good."""
        self._ended.set()
        self.cut()
        self._thread.join(timeout=10)

    def _accept(self) -> None:
        while not self._ended.is_set():
            try:
                ready, _, _ = select.select([self._listener], [], [], 0.1)
                if not ready:
                    continue
                near, _ = self._listener.accept()
            except (OSError, ValueError):  # cut
                time.sleep(0.05)
                continue
            self.carried += 1
            threading.Thread(target=self._carry, args=(near,), daemon=True).start()

    def _carry(self, near: socket.socket) -> None:
        with near, socket.create_connection(("127.0.0.1", self._target)) as far:
            ends = {near: far, far: near}
            while self._connected.is_set():
                for end in select.select(list(ends), [], [], 0.1)[0]:
                    try:
                        data = end.recv(1 << 16)
                        if not data:
                            return
                        ends[end].sendall(data)
                    except OSError:
                        return
