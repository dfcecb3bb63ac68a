# SPDX-License-Identifier: Apache-2.0
"""The parts of packaging/demo: what it needs, the world it makes, the boot it follows, the verdict it gives."""
