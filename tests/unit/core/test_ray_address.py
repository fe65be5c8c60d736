"""A cluster that does not answer is named at once, and refused after a stated time."""

import socket
import threading
from collections.abc import Iterator
from concurrent import futures

import pytest

from core.errors import InputError
from core.ray_address import await_cluster


@pytest.fixture
def silent_port() -> Iterator[int]:
    """Return a port where connections are accepted and nothing is said."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("http://127.0.0.1:8265", "address of a dashboard.*ray job submit --address http://127.0.0.1:8265"),
        ("head", "give HOST:PORT"),
        ("head:70000", "give HOST:PORT"),
        ("127.0.0.1:1", "RAY_ADDRESS=127.0.0.1:1: no Ray cluster answers within 0.2 s.*unset RAY_ADDRESS"),
        ("ray://127.0.0.1:1", "no Ray cluster answers"),
    ],
)
def test_an_address_without_a_cluster_is_refused(address, message):
    with pytest.raises(InputError, match=message):
        await_cluster(address, wait_s=0.2)


def test_a_port_of_something_else_is_refused(silent_port, caplog):
    with pytest.raises(InputError, match="no Ray cluster answers"):
        await_cluster(f"127.0.0.1:{silent_port}", wait_s=0.1)


def test_a_grpc_server_is_taken_for_a_cluster():
    grpc = pytest.importorskip("grpc", reason="grpcio comes with ray[default] alone")
    server = grpc.server(futures.ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        await_cluster(f"127.0.0.1:{port}", wait_s=5)
        await_cluster(f"ray://127.0.0.1:{port}", wait_s=5)
    finally:
        server.stop(None)


def test_a_cluster_that_starts_late_is_joined():
    grpc = pytest.importorskip("grpc", reason="grpcio comes with ray[default] alone")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    server = grpc.server(futures.ThreadPoolExecutor(1))
    server.add_insecure_port(f"127.0.0.1:{port}")
    starter = threading.Timer(0.5, server.start)
    starter.start()
    try:
        await_cluster(f"127.0.0.1:{port}", wait_s=10)
    finally:
        starter.join()
        server.stop(None)
