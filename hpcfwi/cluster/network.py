"""The driver's own address: the one that workers on other hosts can reach."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import psutil
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from distributed.security import Security

from hpcfwi.batch.base import clean_environment
from hpcfwi.cluster.dashboard import address_for_dashboard
from hpcfwi.config.site import NetworkSection
from hpcfwi.errors import InputError
from hpcfwi.io import make_private

__all__ = [
    "ALLOWED_FAILURES",
    "CLOCK_SKEW",
    "LIFETIME",
    "driver_address",
    "interfaces",
    "private_security",
    "scheduler_options",
]

# Dask itself starts no task again whose worker has died: who asked for it decides where it goes next, and how often.
ALLOWED_FAILURES = 0
# Interfaces of containers and virtual machines, which lead to no other host.
INWARD = re.compile(r"lo|docker|virbr|veth|cni|flannel|br-")


def interfaces() -> dict[str, str]:
    """IPv4 addresses of this host's interfaces that are up, by name, loopback left out."""
    up = psutil.net_if_stats()
    return {
        name: address.address
        for name, addresses in psutil.net_if_addrs().items()
        for address in addresses
        if address.family == socket.AF_INET
        and name in up
        and up[name].isup
        and not ip_address(address.address).is_loopback
    }


def driver_address(interface: str | None = None) -> str:
    """The address that the scheduler listens on.

    Parameters
    ----------
    interface
        Name of the interface to take; by default the one that leads to the batch system's server, else to the rest of the
        world, else the first that leads outwards.

    Raises
    ------
    InputError
        If there is no such interface; with those that there are.
    """
    known = interfaces()
    told = ", ".join(f"{name} ({address})" for name, address in known.items()) or "none"
    if interface is not None:
        if interface not in known:
            raise InputError(f"site.network.interface: there is no {interface} on this host; there are {told}")
        return known[interface]
    for host in [*_servers(), "192.0.2.1", "10.255.255.254"]:
        with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((host, 9))  # sends nothing: it only asks which way that would be
            address = str(probe.getsockname()[0])
            if address in known.values():
                return address
    outward = [address for name, address in known.items() if not INWARD.match(name)]
    if not outward:
        raise InputError(
            f"this host has no network interface that workers on other hosts could reach (interfaces: {told}); name one in "
            "site.network.interface"
        )
    return outward[0]


def _servers() -> list[str]:
    """Hosts of the batch system's server, as far as its commands or files tell."""
    found = []
    if shutil.which("scontrol"):
        with suppress(OSError, subprocess.SubprocessError):
            text = subprocess.run(
                ["scontrol", "show", "config"],
                capture_output=True,
                text=True,
                timeout=5,
                env=clean_environment(os.environ),
                check=True,
            ).stdout
            found += re.findall(r"^SlurmctldHost\[\d+\]\s*=\s*([^\s(]+)", text, re.MULTILINE)
    for name in ("PBS_SERVER", "PBS_DEFAULT"):
        if os.environ.get(name):
            found.append(os.environ[name].partition(":")[0])
    return found


def scheduler_options(network: NetworkSection, host: str) -> dict[str, Any]:
    """Keywords of Dask's scheduler that listens on ``host``."""
    options: dict[str, Any] = {
        "host": host,
        "dashboard_address": address_for_dashboard(network.dashboard),
        "dashboard": False,  # it is opened later, see hpcfwi.cluster.dashboard
        "allowed_failures": ALLOWED_FAILURES,
    }
    if network.ports is not None:
        options["port"] = _free_port(network.ports, host)
    return options


def _free_port(ports: str, host: str) -> int:
    """The first port of ``first:last`` that nobody uses."""
    first, last = map(int, ports.split(":"))
    for port in range(first, last + 1):
        with socket.socket() as probe:
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return port
    raise InputError(f"site.network.ports: all ports from {first} to {last} of {host} are in use")


# Clocks of nodes differ: a certificate is good from a day before it was made.
CLOCK_SKEW = timedelta(days=1)
LIFETIME = timedelta(days=60)


@contextmanager
def private_security(folder: Path) -> Iterator[Security]:
    """Dask's security with a fresh key and certificate in ``folder``, for the owner alone; both are removed at the end.

    Everybody in the run, and nobody else, has the key: it signs itself, and it is the authority.
    """
    shutil.rmtree(folder, ignore_errors=True)
    make_private(folder)
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    try:
        for path, content in zip((key, certificate), _pair(), strict=True):
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(content)
        ours = {
            f"tls_{role}_{what}": str(path)
            for role in ("client", "scheduler", "worker")
            for what, path in (("key", key), ("cert", certificate))
        }
        yield Security(require_encryption=True, tls_ca_file=str(certificate), **ours)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _pair() -> tuple[bytes, bytes]:
    """Private key and self-signed certificate, PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "hpcfwi")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private, certificate.public_bytes(serialization.Encoding.PEM)
