# SPDX-License-Identifier: Apache-2.0
"""Who and how this machine is: configuration, instance id, provisioning state, system info."""
