# SPDX-License-Identifier: Apache-2.0
"""Tokens, their files, and the certificate request; no HTTP."""
