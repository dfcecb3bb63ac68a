# SPDX-License-Identifier: Apache-2.0
"""The TLS key: 0600 and root's, whatever wrote it; the certificate readable, of this key, and valid now.

No process: a handshake with ourselves in memory makes OpenSSL check key, chain and dates as a client does. The library
that reads a certificate's fields (python3-cryptography) is the agent's dependency, not ours, and the program openssl is
not part of Debian's base.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from cc_sammy.config import Config
from cc_sammy.contract import paths
from cc_sammy.errors import StepFailed
from cc_sammy.host.host import Host
from cc_sammy.steps.base import Step

if TYPE_CHECKING:
    import ssl

KEY_MODE, CERTIFICATE_MODE = 0o600, 0o644
NOT_YET_VALID, EXPIRED = 9, 10  # X509_V_ERR_CERT_NOT_YET_VALID, _HAS_EXPIRED: OpenSSL's numbers never change
HANDSHAKE_ROUNDS = 4  # upper bound of the flights that either side sends


def already_done(host: Host, config: Config) -> str | None:
    """There is no key, or key and certificate are as required."""
    if not os.path.exists(config.tls.key_file):
        return f"there is no key at {config.tls.key_file}"
    wrong = [path for path, mode in _files(config) if _is_wrong(path, mode)]
    if wrong:
        return None
    if not _is_user_provided(config):
        return "key and certificate have the right modes"
    try:
        require_pair(config.tls.key_file, config.tls.certificate_file)
    except StepFailed:
        return None  # run() reports it
    return "key and certificate have the right modes, belong together and are valid now"


def run(host: Host, config: Config) -> None:
    """Set owner and mode; refuse links: a key that points elsewhere is an attack or a mistake."""
    for path, mode in _files(config):
        if os.path.islink(path):
            raise StepFailed(f"{path} is a symbolic link; its mode is not set", "Put the file itself there")
        if os.path.exists(path):
            os.chown(path, 0, 0)
            os.chmod(path, mode)
    if _is_user_provided(config):
        require_pair(config.tls.key_file, config.tls.certificate_file)


def _is_user_provided(config: Config) -> bool:
    """Return whether a person provided the pair: the agent renews its own, even one that expired meanwhile."""
    return os.path.exists(config.tls.certificate_file) and not os.path.exists(paths.AGENT_TLS_MARK)


def require_pair(key_file: str, certificate_file: str) -> None:
    """Fail, naming both files, unless the certificate is the key's and clients accept its dates and purpose."""
    import ssl

    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        server.load_cert_chain(certificate_file, key_file, password="")  # otherwise OpenSSL prompts on the console
    except ssl.SSLError as error:
        raise StepFailed(*_pair_problem(key_file, certificate_file, error.reason)) from error
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # clients decide whom they trust
    try:
        client.load_verify_locations(certificate_file)
        _shake_hands(client, server)
    except ssl.SSLCertVerificationError as error:
        raise _refused(certificate_file, error.verify_code, error.verify_message) from error
    except ssl.SSLError as error:
        said = f"{certificate_file} cannot be served with {key_file}: {error.reason or error}"
        raise StepFailed(said, "Put a certificate there that is meant for a TLS server") from error


def _shake_hands(client_side: ssl.SSLContext, server_side: ssl.SSLContext) -> None:
    """Do a handshake in memory. SSLError when one side refuses."""
    import ssl

    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_side.wrap_bio(down, up)
    server = server_side.wrap_bio(up, down, server_side=True)
    for _ in range(HANDSHAKE_ROUNDS):
        waiting = 0
        for side in (client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                waiting += 1
        if not waiting:
            return
    raise ssl.SSLError("the handshake does not finish")


def _pair_problem(key_file: str, certificate_file: str, reason: str | None) -> tuple[str, str]:
    if reason == "KEY_VALUES_MISMATCH":
        said = f"the certificate {certificate_file} does not match the key {key_file}"
        return said, "Install the certificate that was issued for this key, or its own key"
    said = f"{key_file} and {certificate_file} cannot be read as a key and its certificate ({reason or 'no PEM'})"
    return said, "Both must be PEM, the key without a passphrase, the certificate followed by its chain"


def _refused(path: str, code: int, words: str) -> StepFailed:
    """Return the failure; a clock that is not set yet is as likely as a wrong certificate, and is transient."""
    import time

    now = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    dates = f"Compare with `openssl x509 -noout -dates -in {path}`"
    if code == EXPIRED:
        return StepFailed(f"the certificate {path} has expired; the clock says {now}", f"{dates} and renew it")
    if code == NOT_YET_VALID:
        said = f"the certificate {path} is not valid yet; the clock says {now}"
        return StepFailed(said, f"{dates}; is the clock right?", transient=True)
    return StepFailed(f"clients refuse the certificate {path}: {words}", "Put a TLS server's certificate there")


def _files(config: Config) -> tuple[tuple[str, int], ...]:
    return (config.tls.key_file, KEY_MODE), (config.tls.certificate_file, CERTIFICATE_MODE)


def _is_wrong(path: str, mode: int) -> bool:
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return False
    return not stat.S_ISREG(status.st_mode) or stat.S_IMODE(status.st_mode) != mode or status.st_uid != 0


STEP = Step("tls-permissions", "tls", already_done, run, after=("firewall",), retries=2)
