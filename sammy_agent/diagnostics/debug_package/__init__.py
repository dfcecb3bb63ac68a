# SPDX-License-Identifier: Apache-2.0
"""The debug package: the state and logs of a node in one archive that can be handed to a stranger.

The journal entry's own could only be pulled from a node that was reachable already, and redacted nothing. This one is
made on the node by one command, needs neither network nor agent, and gives no secret away.
"""
