"""Check that a Ray cluster answers at its address, because `ray.init` would wait for many minutes without a word."""

from __future__ import annotations

import os
import socket
import time
from typing import Final

from core import logs
from core.errors import InputError

_WAIT_S: Final = 60.0  # a head node that starts again answers within this time
_POLL_S: Final = 2.0
# What an HTTP/2 client sends first, and the type of the frame with which every gRPC server answers: RFC 9113, 3.4.
_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
_SETTINGS: Final = 4


def await_cluster(address: str, wait_s: float = _WAIT_S) -> None:
    """Return once a Ray cluster answers at RAY_ADDRESS (HOST:PORT, ray://HOST:PORT or auto).

    Raises InputError for another form, and if nothing answers within `wait_s` seconds.
    """
    where = f"RAY_ADDRESS={address}"
    if address.startswith(("http://", "https://")):
        raise InputError(
            "this is the address of a dashboard, to which jobs are submitted",
            where,
            f"run `ray job submit --address {address} -- COMMAND`, or give the cluster's HOST:PORT.",
        )
    logs.info("ray", f"joining the cluster at {address}")
    if address == "auto":
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise InputError("not an address of a Ray cluster", where, "give HOST:PORT or auto, or unset it.")
    end = time.monotonic() + wait_s
    while not _answers(host.strip("[]"), int(port)):
        if time.monotonic() > end:
            raise InputError(
                f"no Ray cluster answers within {wait_s:g} s",
                where,
                "start it (`ray up cluster.yaml`), correct the address, or unset RAY_ADDRESS to use this machine.",
            )
        time.sleep(min(_POLL_S, wait_s / 10))


def _answers(host: str, port: int) -> bool:
    """Return whether a gRPC server listens."""
    try:
        with socket.create_connection((host, port), timeout=_POLL_S) as connection:
            if os.environ.get("RAY_USE_TLS", "0") != "0":
                return True
            connection.sendall(_PREFACE)
            frame = b""
            while len(frame) < 9 and (part := connection.recv(9 - len(frame))):
                frame += part
            return len(frame) == 9 and frame[3] == _SETTINGS
    except OSError:
        return False
