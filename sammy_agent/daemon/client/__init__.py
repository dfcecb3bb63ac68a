# SPDX-License-Identifier: Apache-2.0
"""Requests to the control plane: the one HTTP client, failures in words, the connection's status; with its fake."""
