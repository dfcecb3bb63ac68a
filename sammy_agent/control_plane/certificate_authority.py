# SPDX-License-Identifier: Apache-2.0
"""The control plane's own certificate authority: its server certificate, and the nodes' certificates from their CSRs.

Certificates begin a day before they are made: the clocks of first boots are wrong, mostly by time zones. A node's
private key never leaves the node.
"""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
import os
from collections.abc import Iterable
from datetime import datetime, timedelta, timezone

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sammy_agent.base.errors import Code, ControlPlaneError
from sammy_agent.base.runtime import files

CA_DAYS = 3650
SERVER_DAYS = 825
NODE_DAYS = 825
EARLIER = timedelta(days=1)


class CsrRefused(ControlPlaneError):
    """A certificate request cannot be signed."""

    code = Code.CSR_REFUSED


class CertificateAuthority:
    """The certificate authority of one state directory."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self.ca_file = os.path.join(folder, "ca.crt")
        self._key = _own_key(os.path.join(folder, "ca.key"))
        text = files.read(self.ca_file)
        if text is None:
            text = _pem(self._make_ca())
            files.write(self.ca_file, text)
        self.ca_pem = text
        self._ca = x509.load_pem_x509_certificate(text.encode())

    def __repr__(self) -> str:
        return f"<CertificateAuthority {self.fingerprint()}>"

    def fingerprint(self) -> str:
        """Return the CA's SHA-256, in the form that openssl prints."""
        return self._ca.fingerprint(hashes.SHA256()).hex(":").upper()

    def server_files(self, names: Iterable[str]) -> tuple[str, str]:
        """Return the server's certificate and key files for these names and addresses, renewed when they must be."""
        certificate_file = os.path.join(self._folder, "server.crt")
        key_file = os.path.join(self._folder, "server.key")
        key = _own_key(key_file)
        wanted = sorted({name.lower() for name in names})
        text = files.read(certificate_file)
        if text is None or not self._still_good(text, wanted, key):
            builder = _builder("sammy control plane", SERVER_DAYS, key.public_key(), self._ca.subject)
            builder = builder.add_extension(
                x509.SubjectAlternativeName([_general_name(name) for name in wanted]), critical=False
            )
            files.write(certificate_file, self._sign_leaf(builder))
        return certificate_file, key_file

    def sign_node(self, csr_pem: str, node: str, address: str) -> tuple[str, str]:
        """Return (certificate PEM, SHA-256 of its public key) for a node's request.

        Names in the request are ignored: the certificate holds the node's id and the address it called from.

        :raises CsrRefused: it is not a PEM request, its signature is wrong, or its key is weak.
        """
        try:
            request = x509.load_pem_x509_csr(csr_pem.encode())
            valid = request.is_signature_valid
            key = request.public_key()
        except Exception as error:  # cryptography raises what its backends raise: ValueError, UnsupportedAlgorithm, …
            raise CsrRefused(f"not a certificate request: {error}") from error
        if not valid:
            raise CsrRefused("the request's signature does not fit its key")
        if isinstance(key, rsa.RSAPublicKey):
            strong = key.key_size >= 2048
        else:
            strong = isinstance(key, ec.EllipticCurvePublicKey) and key.key_size >= 256
        if not isinstance(key, (rsa.RSAPublicKey, ec.EllipticCurvePublicKey)) or not strong:
            raise CsrRefused("the request's key must be RSA of 2048 bits or more, or elliptic of 256 or more")
        builder = _builder(node[:64], NODE_DAYS, key, self._ca.subject)
        names: list[x509.GeneralName] = [x509.DNSName(node.lower())]
        with contextlib.suppress(ValueError):
            names.append(x509.IPAddress(ipaddress.ip_address(address)))
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return self._sign_leaf(builder), key_digest(key)

    def _sign_leaf(self, builder: x509.CertificateBuilder) -> str:
        issuer_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        builder = builder.add_extension(issuer_key, critical=False)
        return _pem(builder.sign(self._key, hashes.SHA256()))

    def _make_ca(self) -> x509.Certificate:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"sammy control plane {os.urandom(4).hex()}")])
        builder = _builder("", CA_DAYS, self._key.public_key(), subject, subject)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        usage = dict.fromkeys(
            (
                "digital_signature",
                "content_commitment",
                "key_encipherment",
                "data_encipherment",
                "key_agreement",
                "encipher_only",
                "decipher_only",
            ),
            False,
        )
        builder = builder.add_extension(x509.KeyUsage(key_cert_sign=True, crl_sign=True, **usage), critical=True)
        own = x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())
        return builder.add_extension(own, critical=False).sign(self._key, hashes.SHA256())

    def _still_good(self, text: str, wanted: list[str], key: ec.EllipticCurvePrivateKey) -> bool:
        certificate = x509.load_pem_x509_certificate(text.encode())
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        held = sorted(str(name.value).lower() for name in names)
        # 60 days ahead, so that a server restarted now and then never serves an expired one
        now = datetime.now(timezone.utc)
        fresh = _not_after(certificate) - now > timedelta(days=60) and _not_before(certificate) <= now
        same_key = key_digest(certificate.public_key()) == key_digest(key.public_key())
        return fresh and same_key and held == wanted and certificate.issuer == self._ca.subject


def key_digest(key: object) -> str:
    """Return the SHA-256 of a public key."""
    raw = key.public_bytes(  # type: ignore[attr-defined]  # every kind of public key has it, no common type does
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(raw).hexdigest()


def _not_after(certificate: x509.Certificate) -> datetime:
    return certificate.not_valid_after.replace(tzinfo=timezone.utc)  # cryptography 38 knows no _utc form


def _not_before(certificate: x509.Certificate) -> datetime:
    return certificate.not_valid_before.replace(tzinfo=timezone.utc)


def _own_key(path: str) -> ec.EllipticCurvePrivateKey:
    text = files.read(path)
    if text is None:
        made = ec.generate_private_key(ec.SECP256R1())
        text = made.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode()
        files.write(path, text, mode=files.PRIVATE)
    key = serialization.load_pem_private_key(text.encode(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ControlPlaneError(
            f"{path} is not an elliptic-curve key", "Remove it together with ca.crt, then add all nodes again"
        )
    return key


def _builder(
    common_name: str,
    days: int,
    key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey,
    issuer: x509.Name,
    subject: x509.Name | None = None,
) -> x509.CertificateBuilder:
    now = datetime.now(timezone.utc)
    return (
        x509.CertificateBuilder()
        .subject_name(subject or x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)]))
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - EARLIER)
        .not_valid_after(now + timedelta(days=days))
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()
