# SPDX-License-Identifier: Apache-2.0
"""What both sides agree on: journal fields, state file, run record, configuration schema, paths.

The one definition: cc_sammy writes by it, `sammy` and sammy_agent read by it. Free of cloud-init and of anything
heavy, since all three import it.
"""
