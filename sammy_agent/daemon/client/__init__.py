# SPDX-License-Identifier: Apache-2.0
"""The HTTP client of the control plane, failures in words, connection status."""
