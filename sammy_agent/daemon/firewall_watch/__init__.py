# SPDX-License-Identifier: Apache-2.0
"""The watchdog over the firewall and the lock-out decision; the rules are cc_sammy.firewall's."""
