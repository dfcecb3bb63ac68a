# SPDX-License-Identifier: Apache-2.0
"""Known secrets, patterns, pseudonyms; no reading of logs."""
