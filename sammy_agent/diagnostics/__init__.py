# SPDX-License-Identifier: Apache-2.0
"""What is known of a node: kept, searched, cleaned of secrets, packed; nothing that talks to a control plane."""
