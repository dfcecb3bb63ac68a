# SPDX-License-Identifier: Apache-2.0
"""The verbs of `sammy-agent control-plane` and its nodes; no route."""
