# SPDX-License-Identifier: Apache-2.0
"""What people type and read on a terminal: one module a command; nothing that another wing needs."""
