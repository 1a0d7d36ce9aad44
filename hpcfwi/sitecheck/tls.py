"""Who gets through to a scheduler: those who have the run's key, and no strangers; tried on the driver's own address."""

from __future__ import annotations

import asyncio
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from distributed import Scheduler
from distributed.comm import connect
from distributed.security import Security

from hpcfwi.cluster.network import private_security, scheduler_options
from hpcfwi.config.site import NetworkSection
from hpcfwi.errors import InputError
from hpcfwi.sitecheck.results import Finding, problem, warning

__all__ = ["certificate_finding", "handshake_finding", "tls_findings", "try_connections", "why_not"]

# Seconds that friends and strangers try to connect.
OWN_KEY_TIMEOUT_S, OTHER_KEY_TIMEOUT_S = 5.0, 1.5


def tls_findings(network: NetworkSection, address: str) -> list[Finding]:
    """Whether those with the run's key get through to a scheduler on ``address``, and strangers do not."""
    if not network.tls:
        advice = "leave network.tls out, unless nobody else can reach this network"
        return [warning("encryption", "off: whoever reaches the driver's port can run programs as you", advice)]
    with tempfile.TemporaryDirectory(prefix="hpcfwi-check-") as folder:
        ours, theirs = (Path(folder) / name for name in ("ours", "theirs"))
        with private_security(ours) as security, private_security(theirs) as foreign:
            certificate = certificate_finding(Path(security.tls_ca_file))
            try:
                through, intruders = asyncio.run(try_connections(network, address, security, foreign))
            except (OSError, RuntimeError, InputError) as error:
                trouble = f"no scheduler can listen on {address}: {error}"
                return [
                    problem("encryption", trouble, "choose another network.interface or network.ports"),
                    certificate,
                ]
    return [handshake_finding(through, intruders, address), certificate]


def handshake_finding(trouble: str, intruders: list[str], address: str) -> Finding:
    """Judge what came of the attempts to connect: ours, whose trouble is empty if it succeeded, and those of strangers."""
    if trouble:
        advice = "see the certificate's row, and whether a firewall closes ports of this host (network.ports)"
        return problem("encryption", f"TLS does not get through to {address}: {trouble}", advice)
    if intruders:
        advice = "do not run here: this should be impossible, report it"
        return problem("encryption", f"strangers are let in on {address}: {', '.join(intruders)}", advice)
    return Finding("encryption", f"TLS gets through to {address}; plain TCP and other people's keys do not")


async def try_connections(
    network: NetworkSection, address: str, ours: Security, theirs: Security
) -> tuple[str, list[str]]:
    """Connect to a scheduler with the run's key, without any, and with another; returns our own trouble, and who got in."""
    options = scheduler_options(network, address) | {"dashboard_address": "127.0.0.1:0", "dashboard": False}
    async with Scheduler(**options, protocol="tls://", security=ours) as scheduler:
        trouble = await why_not(scheduler.address, ours, OWN_KEY_TIMEOUT_S)
        plain = scheduler.address.replace("tls://", "tcp://")
        strangers = {"plain TCP": (plain, Security()), "another key": (scheduler.address, theirs)}
        reasons = await asyncio.gather(*(why_not(*stranger, OTHER_KEY_TIMEOUT_S) for stranger in strangers.values()))
    return trouble, [name for name, reason in zip(strangers, reasons, strict=True) if not reason]


async def why_not(address: str, security: Security, patience: float) -> str:
    """Why no connection can be made; empty where it can."""
    try:
        comm = await connect(address, timeout=patience, **security.get_connection_args("client"))
    except (OSError, TypeError, RuntimeError) as error:
        return f"{type(error).__name__}: {error}"
    await comm.close()
    return ""


def certificate_finding(path: Path) -> Finding:
    """Whether a certificate is valid by this host's clock."""
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    first, last = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    found = f"valid from {first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} UTC"
    if not first < datetime.now(UTC) < last:
        return problem("certificate", f"{found}, but it is {datetime.now(UTC):%Y-%m-%d %H:%M}", "set this host's clock")
    return Finding("certificate", found)
