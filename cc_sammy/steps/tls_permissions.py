# SPDX-License-Identifier: Apache-2.0
"""The TLS key: 0600 and root's, whatever wrote it; the certificate readable. System calls, no process."""

from __future__ import annotations

import os
import stat

from cc_sammy.config import Config
from cc_sammy.errors import StepFailed
from cc_sammy.host import Host
from cc_sammy.plan import Step

KEY_MODE, CERTIFICATE_MODE = 0o600, 0o644


def satisfied(host: Host, config: Config) -> str | None:
    """There is no key, or key and certificate are as they must be."""
    if not host.exists(config.tls.key_file):
        return f"there is no key at {config.tls.key_file}"
    wrong = [path for path, mode in _files(config) if _is_wrong(path, mode)]
    return None if wrong else "key and certificate have their modes"


def run(host: Host, config: Config) -> None:
    """Set owner and mode; links are refused: a key that points elsewhere is somebody's trick or mistake."""
    for path, mode in _files(config):
        if os.path.islink(path):
            raise StepFailed(f"{path} is a symbolic link; its mode is not set", "Put the file itself there")
        if os.path.exists(path):
            os.chown(path, 0, 0)
            os.chmod(path, mode)


def _files(config: Config) -> tuple[tuple[str, int], ...]:
    return (config.tls.key_file, KEY_MODE), (config.tls.certificate_file, CERTIFICATE_MODE)


def _is_wrong(path: str, mode: int) -> bool:
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return False
    return not stat.S_ISREG(status.st_mode) or stat.S_IMODE(status.st_mode) != mode or status.st_uid != 0


STEP = Step("tls-permissions", "tls", satisfied, run, after=("firewall",))
