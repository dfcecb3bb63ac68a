# SPDX-License-Identifier: Apache-2.0
"""Creates the node's TLS key and prints its certificate request; a separate program, run by `reporters.certificate`.

The cryptography library stays resident once imported and costs an idle agent more than everything else it does with
it in a year; so it lives here for some 200 ms. Nothing is printed when there is a certificate that is good for long.
"""

from __future__ import annotations

import sys
from datetime import datetime, timedelta, timezone

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from sammy_agent.base.runtime import files

RENEW_BEFORE = timedelta(days=30)


def request(key_file: str, certificate_file: str, node: str) -> str:
    """Return the CSR that is to be signed, empty when none is needed; creates the key (0600) when there is none."""
    text = files.read(key_file)
    key = None if text is None else _load_key(text)
    if key is None:
        key = ec.generate_private_key(ec.SECP256R1())
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        files.write(key_file, private.decode(), mode=files.PRIVATE)
    elif _is_good(files.read(certificate_file), key):
        return ""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, node[:64])])
    signed = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM).decode()


def belongs(certificate: str, key_file: str) -> bool:
    """Return whether a certificate belongs to the key."""
    key = _load_key(files.read(key_file) or "")
    try:
        return key is not None and _public(x509.load_pem_x509_certificate(certificate.encode())) == _public(key)
    except ValueError:
        return False


def _load_key(text: str) -> ec.EllipticCurvePrivateKey | None:
    try:
        key = serialization.load_pem_private_key(text.encode(), password=None)
    except ValueError:
        return None  # cut short by a full disk; a new one is as good, the old one was never used
    return key if isinstance(key, ec.EllipticCurvePrivateKey) else None


def _is_good(text: str | None, key: ec.EllipticCurvePrivateKey) -> bool:
    try:
        certificate = x509.load_pem_x509_certificate((text or "").encode())
    except ValueError:
        return False
    ends = certificate.not_valid_after.replace(tzinfo=timezone.utc)
    return _public(certificate) == _public(key) and ends - datetime.now(timezone.utc) > RENEW_BEFORE


def _public(holder: x509.Certificate | ec.EllipticCurvePrivateKey) -> bytes:
    return holder.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def main() -> int:
    """Run: `request KEY CERTIFICATE NODE` prints a CSR; `install KEY CERTIFICATE` takes a certificate from stdin."""
    verb, key_file, certificate_file = sys.argv[1:4]
    try:
        if verb == "request":
            sys.stdout.write(request(key_file, certificate_file, sys.argv[4]))
            return 0
        certificate = sys.stdin.read(65536)
        if not belongs(certificate, key_file):
            print("the answer is not a certificate for this node's key", file=sys.stderr)
            return 1
        files.write(certificate_file, certificate)
    except OSError as error:
        print(f"{error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
