# SPDX-License-Identifier: Apache-2.0
"""Commands, what they use, and the clock, with a fake for tests; no decision, and no file (common.files)."""
