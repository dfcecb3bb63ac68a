# SPDX-License-Identifier: Apache-2.0
"""What several steps need of Debian: apt, its mirror, Docker, systemd; no step."""
