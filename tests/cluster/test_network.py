"""Certificates: for this run alone, good on nodes whose clocks differ, and gone at the end."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509

from hpcfwi.cluster.network import CERTIFICATE_LIFETIME, CLOCK_SKEW, private_security


def certificate(folder):
    return x509.load_pem_x509_certificate((folder / "certificate.pem").read_bytes())


def test_a_certificate_is_valid_from_the_day_before_and_longer_than_any_walltime(tmp_path):
    now = datetime.now(UTC)
    with private_security(tmp_path / "tls"):
        made = certificate(tmp_path / "tls")
    assert timedelta(hours=23) < now - made.not_valid_before_utc < timedelta(hours=25)
    assert timedelta(days=1) == CLOCK_SKEW
    assert made.not_valid_after_utc - now > CERTIFICATE_LIFETIME - timedelta(hours=1)


def test_every_run_has_its_own_key_which_others_cannot_read(tmp_path):
    keys = set()
    for _ in range(2):
        with private_security(tmp_path / "tls"):
            assert (tmp_path / "tls").stat().st_mode & 0o777 == 0o700
            assert (tmp_path / "tls" / "key.pem").stat().st_mode & 0o777 == 0o600
            keys.add((tmp_path / "tls" / "key.pem").read_bytes())
        assert not (tmp_path / "tls").exists()
    assert len(keys) == 2


def test_keys_are_removed_even_if_the_run_fails(tmp_path):
    with pytest.raises(RuntimeError), private_security(tmp_path / "tls"):
        raise RuntimeError
    assert not (tmp_path / "tls").exists()


def test_keys_that_a_killed_driver_left_are_replaced(tmp_path):
    (tmp_path / "tls").mkdir()
    (tmp_path / "tls" / "key.pem").write_text("old")
    with private_security(tmp_path / "tls") as security:
        assert (tmp_path / "tls" / "key.pem").read_text() != "old"
        assert security.require_encryption
