"""Checks of the encryption: a scheduler on the driver's address accepts the key of the run and nothing else."""

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

OWN_KEY_TIMEOUT_S, OTHER_KEY_TIMEOUT_S = 5.0, 1.5


def tls_findings(network: NetworkSection, address: str) -> list[Finding]:
    """Check that the key of a run, and only that, opens a connection to a scheduler on ``address``."""
    if not network.tls:
        advice = "remove network.tls = false, unless only you can reach this network"
        return [warning("encryption", "off: whoever reaches the driver's port can run programs as you", advice)]
    with tempfile.TemporaryDirectory(prefix="hpcfwi-check-") as folder:
        own_folder, other_folder = Path(folder, "own"), Path(folder, "other")
        with private_security(own_folder) as own, private_security(other_folder) as other:
            certificate = _certificate_finding(Path(own.tls_ca_file))
            try:
                error, intruders = asyncio.run(try_connections(network, address, own, other))
            except (OSError, RuntimeError, InputError) as error_here:
                found = f"no scheduler can listen on {address}: {error_here}"
                return [problem("encryption", found, "set network.interface or network.ports"), certificate]
    return [_handshake_finding(error, intruders, address), certificate]


def _handshake_finding(error: str, intruders: list[str], address: str) -> Finding:
    if error:
        advice = "see the row of the certificate; does a firewall close ports of this host (network.ports)?"
        return problem("encryption", f"TLS does not get through to {address}: {error}", advice)
    if intruders:
        advice = "do not run here, and report this: it should be impossible"
        return problem("encryption", f"strangers are let in on {address}: {', '.join(intruders)}", advice)
    return Finding("encryption", f"TLS gets through to {address}; plain TCP and other people's keys do not")


async def try_connections(
    network: NetworkSection, address: str, own: Security, other: Security
) -> tuple[str, list[str]]:
    """Connect to a scheduler with the key of the run, without a key, and with another one.

    Returns why the own key fails (empty if it does not), and which of the others get in.
    """
    options = scheduler_options(network, address) | {"dashboard_address": "127.0.0.1:0", "dashboard": False}
    async with Scheduler(**options, protocol="tls://", security=own) as scheduler:
        error = await connection_error(scheduler.address, own, OWN_KEY_TIMEOUT_S)
        plain = scheduler.address.replace("tls://", "tcp://")
        strangers = {"plain TCP": (plain, Security()), "another key": (scheduler.address, other)}
        errors = await asyncio.gather(
            *(connection_error(*stranger, OTHER_KEY_TIMEOUT_S) for stranger in strangers.values())
        )
    return error, [name for name, refused in zip(strangers, errors, strict=True) if not refused]


async def connection_error(address: str, security: Security, timeout_s: float) -> str:
    """Connect and disconnect; return why that fails, or an empty string."""
    try:
        comm = await connect(address, timeout=timeout_s, **security.get_connection_args("client"))
    except (OSError, TypeError, RuntimeError) as error:
        return f"{type(error).__name__}: {error}"
    await comm.close()
    return ""


def _certificate_finding(path: Path) -> Finding:
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    first, last, now = certificate.not_valid_before_utc, certificate.not_valid_after_utc, datetime.now(UTC)
    found = f"valid from {first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} UTC"
    if not first < now < last:
        return problem("certificate", f"{found}, but it is {now:%Y-%m-%d %H:%M}", "set the clock of this host")
    return Finding("certificate", found)
