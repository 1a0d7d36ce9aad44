"""A certificate of its own for every run: what leaves the machine is encrypted, and strangers are refused."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from distributed.security import Security

from hpcfwi.io import make_private

__all__ = ["CLOCK_SKEW", "LIFETIME", "private_security"]

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
