# SPDX-License-Identifier: Apache-2.0
"""Tokens, their files, the certificate request; no HTTP."""
