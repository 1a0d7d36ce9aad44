"""The network between driver and workers: the driver's address and ports, and a certificate for each run."""

import os
import re
import shutil
import socket
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

from hpcfwi.batch.registry import batch_systems
from hpcfwi.cluster.dashboard import dashboard_address
from hpcfwi.config.site import NetworkSection
from hpcfwi.errors import InputError
from hpcfwi.io import make_private

LOCAL_INTERFACES = re.compile(r"lo|docker|virbr|veth|cni|flannel|br-")  # of containers and virtual machines
OUTSIDE = ("192.0.2.1", "10.255.255.254")  # unused; the kernel says which interface leads there
CLOCK_SKEW = timedelta(days=1)  # between nodes: a certificate is valid from this long before its creation
CERTIFICATE_LIFETIME = timedelta(days=60)


def interfaces() -> dict[str, str]:
    """Return the IPv4 addresses of this host's active interfaces by name, without loopback."""
    up = {name for name, state in psutil.net_if_stats().items() if state.isup}
    found = [(name, one) for name, addresses in psutil.net_if_addrs().items() if name in up for one in addresses]
    ipv4 = {name: one.address for name, one in found if one.family == socket.AF_INET}
    return {name: address for name, address in ipv4.items() if not ip_address(address).is_loopback}


def driver_address(interface: str | None = None) -> str:
    """Return the address on which the scheduler listens: that of the interface with this name.

    The default is the interface that leads to the batch system's server, else to the outside world, else the first one that
    leads to other hosts. Raises InputError, with the list of interfaces, if there is no such interface.
    """
    known = interfaces()
    listed = ", ".join(f"{name} ({address})" for name, address in known.items()) or "none"
    if interface is not None:
        if interface not in known:
            raise InputError(f"site.network.interface: there is no {interface} on this host; it has {listed}")
        return known[interface]
    servers = [host for system in batch_systems().values() for host in system().server_hosts()]
    for host in (*servers, *OUTSIDE):
        with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((host, 9))  # sends nothing
            address = str(probe.getsockname()[0])
            if address in known.values():
                return address
    outward = [address for name, address in known.items() if not LOCAL_INTERFACES.match(name)]
    if not outward:
        problem = "this host has no network interface that workers on other hosts could reach"
        advice = "name one in site.network.interface" if known else "start it on a host with a network"
        raise InputError(f"{problem} (interfaces: {listed}); {advice}")
    return outward[0]


def scheduler_options(network: NetworkSection, host: str) -> dict[str, Any]:
    """Return the keyword arguments of a Dask scheduler that listens on ``host``."""
    return {
        "host": host,
        "port": 0 if network.ports is None else _free_port(network.ports, host),
        "dashboard_address": dashboard_address(network.dashboard),
        "dashboard": False,  # see hpcfwi.cluster.dashboard
        "allowed_failures": 0,  # the executor decides where, and how often, a task is retried after its worker died
    }


def network_options(network: NetworkSection, security: Security | None) -> dict[str, Any]:
    """Return the keyword arguments of a Dask scheduler for workers on other hosts."""
    protocol = "tls://" if security else "tcp://"
    return scheduler_options(network, driver_address(network.interface)) | {"security": security, "protocol": protocol}


def is_free(host: str, port: int) -> bool:
    """Whether a server on this host could listen on a port."""
    with socket.socket() as probe, suppress(OSError):
        probe.bind((host, port))
        return True
    return False


def _free_port(ports: str, host: str) -> int:
    """Return the first unused port of ``first:last``."""
    first, last = map(int, ports.split(":"))
    for port in range(first, last + 1):
        if is_free(host, port):
            return port
    raise InputError(f"site.network.ports: all ports from {first} to {last} of {host} are in use; allow more ports")


@contextmanager
def private_security(folder: Path) -> Iterator[Security]:
    """Create a key and a certificate for one run, in files that only the owner can read, and remove them at the end.

    The certificate is self-signed and its own authority: only processes of this run have the key. All nodes see the folder.
    """
    shutil.rmtree(folder, ignore_errors=True)
    make_private(folder)
    security = security_of(folder)
    try:
        for path, content in zip((security.tls_worker_key, security.tls_ca_file), _key_and_certificate(), strict=True):
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(content)
        yield security
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def security_of(folder: Path) -> Security:
    """Return Dask's security settings for the key and certificate that :func:`private_security` creates in a folder."""
    key, certificate = str(folder / "key.pem"), str(folder / "certificate.pem")
    files: dict[str, Any] = {}
    for role in ("client", "scheduler", "worker"):
        files |= {f"tls_{role}_key": key, f"tls_{role}_cert": certificate}
    return Security(require_encryption=True, tls_ca_file=certificate, **files)


def _key_and_certificate() -> tuple[bytes, bytes]:
    """Return a private key and its self-signed certificate, as PEM."""
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
        .not_valid_after(now + CERTIFICATE_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return private, certificate.public_bytes(pem)
